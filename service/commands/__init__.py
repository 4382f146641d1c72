"""The commands of the serving side: `zooserve serve` and `zooserve predict`."""
