"""A model of one's own: its file is looked at, a card is proposed, tried on photos and written (`zooserve add`).

No family: the card that it writes names one.
"""
