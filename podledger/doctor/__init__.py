"""The doctor, which finds risks and damage, and the recovery of a damaged database."""
