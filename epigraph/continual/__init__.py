"""Tasks learned one after another: what is kept of the earlier ones, measured in three scenarios. Entry: ``sequence.run``."""
