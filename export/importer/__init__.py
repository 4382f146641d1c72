"""The importer: looks at a model file, proposes a card, tries it on photos and exports it (`zooserve add`).

It is not a family: the card that it writes names one.
"""
