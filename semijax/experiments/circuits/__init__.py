"""Do attribution methods find a mechanism that is known?

Small transformers with mechanisms set by hand (`handset`) or established by exact patching
(`trained`), scored by semijax (`flows`) and others (`baselines`), and judged by AUROC, correlation
with exact effects (`patching`) and the faithfulness of circuits (`measures`).
``python -m semijax.experiments.circuits --out FOLDER`` runs all of it (`benchmark`, `summary`);
killed and started again, it goes on where it was.
"""
