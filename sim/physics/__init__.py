"""What nature does; with sim.dataset, all of sim that the pipeline may import."""
