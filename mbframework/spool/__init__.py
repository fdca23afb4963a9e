"""The disk half of a lane: frames, segments, head and seek, reading, recovery."""
