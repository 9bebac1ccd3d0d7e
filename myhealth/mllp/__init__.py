"""HL7 v2 over MLLP: take messages from analyzers over TCP, store them, acknowledge them.

needs: common, audit, machines, intake
"""
