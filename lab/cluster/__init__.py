"""What a lab on a Kubernetes cluster is made with."""
