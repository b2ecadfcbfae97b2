"""What the lab adds to Airflow's own processes: Airflow loads it, the kit imports none of it."""
