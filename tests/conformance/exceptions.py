"""Where Millrace answers other than Kafka, and why. Every line needs its reason; what is not here must be equal."""

import re

# (case, path of the field, reason)
EXCEPTIONS = [
    (r"transactional", r"", "transactional ids are refused with error 53 until transactions are served"),
    (r".*", r"flush\.messages|flush\.ms", "an acknowledgement means a flush here: flush.messages is 1"),
    (r".*", r"min\.insync\.replicas\.((Config)?Source|Synonyms)", "Kafka sets a cluster-wide default on its first start, for a feature of replicated clusters"),
    (r"^Produce .*: null records$", r"", "Kafka stumbles over a null pointer and never answers; here the records are invalid (87)"),
    (r"^Produce .*: deltas wrong$", r"", "a record outside of its batch's offsets would make consumers skip what follows; Kafka refuses it only in compressed batches"),
    (r"^Metadata .*: neither name nor id$", r"ErrorCode", "Kafka stumbles over a null pointer and answers -1; here the request is invalid (42)"),
    (r"^IncrementalAlterConfigs .*: an unknown operation$", r"Error", "Kafka stumbles over a null pointer and answers -1; here the request is invalid (42)"),
    (r"^AlterConfigs .*: a resource twice$", r"", "Kafka stumbles and never answers; here the request is invalid (42)"),
    (r"^DescribeTopicPartitions .*: an empty name$", r"ErrorCode|TopicAuthorizedOperations", "Kafka stumbles over a null pointer and answers -1; here the name is invalid (17)"),
]


def reason(case, path, expected, got):
    for case_pattern, path_pattern, why in EXCEPTIONS:
        if re.search(case_pattern, case) and re.search(path_pattern, path):
            return why
    return None
