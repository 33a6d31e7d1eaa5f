"""Full-catalogue ranking, its metrics, baselines and groups."""
