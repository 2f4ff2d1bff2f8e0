"""What several of these tests name."""

TOKEN = "t" * 43
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
EXPERIMENTS = "/api/v1/namespaces/local/experiments"
