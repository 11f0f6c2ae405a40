"""The parts of the sender: one delivery, and those who carry it out in the background."""
