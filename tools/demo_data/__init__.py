"""Data that the project makes itself: street scenes in the formats of the real data sets."""
