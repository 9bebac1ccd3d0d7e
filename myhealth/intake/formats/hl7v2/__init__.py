"""HL7 v2 observation results (ORU^R01, OUL^R22 and the like)."""
