"""The static models of ava_asd: a small, fast baseline for AVA-ActiveSpeaker with its own commands."""
