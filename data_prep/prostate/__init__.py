"""The Medical Decathlon and six other sites as one prostate data set."""
