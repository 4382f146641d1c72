"""The families: each module builds networks from the files of one library or format, and a card's `family` names it.

`export.network` defines what such a module has. What takes more than one file to read has a folder beside this one:
`export.families.darknet` reads with `export.darknet`.
"""
