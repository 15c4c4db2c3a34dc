"""What makes the projector of the tiny model: pictures and speech, two encoders, and questions about what they show."""
