"""What papers report: OKS-AP, PCKh, PCK, AUC, EPE."""
