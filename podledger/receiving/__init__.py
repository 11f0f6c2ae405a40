"""The parts of the receiver, from the socket's file to the commit."""
