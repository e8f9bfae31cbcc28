"""Where Millrace answers other than Kafka, and why. Every line needs its reason; what is not here must be equal."""

import re

# (case, path of the field, reason)
EXCEPTIONS = [
    (r"transactional", r"", "transactional ids are refused with error 53 until transactions are served"),
    (r".*", r"flush\.messages|flush\.ms", "an acknowledgement means a flush here: flush.messages is 1"),
    (r".*", r"min\.insync\.replicas\.(Config)?Source", "Kafka sets a cluster-wide default on its first start, for a feature of replicated clusters"),
]


def reason(case, path, expected, got):
    for case_pattern, path_pattern, why in EXCEPTIONS:
        if re.search(case_pattern, case) and re.search(path_pattern, path):
            return why
    return None
