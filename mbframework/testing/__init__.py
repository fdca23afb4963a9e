"""For tests of programs and providers: a real Kafka broker to start, kill and freeze."""
