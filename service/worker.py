"""`python -m service.worker ...`: one of the server's processes, as BentoML's own command starts it.

`zooserve serve` has BentoML start it. BentoML's command would let modules of the folder that the server was started in
go before all others: a file there that is named as a library of ours would be run, whoever wrote it.
"""

from service.internals import serve_in_worker


def main() -> None:
    """Serve until the process is told to end."""

    def service() -> object:
        from service.bento import ZooServe  # noqa: PLC0415 - BentoML sets up its log first

        return ZooServe

    serve_in_worker(service)


if __name__ == "__main__":
    main()
