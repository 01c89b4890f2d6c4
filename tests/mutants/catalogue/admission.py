"""Who is who: data directories, hellos and what the log knows of them (rule W5)."""

from mutants.catalogue.mutant import scripted

ADMISSION = (
    scripted(
        "an empty directory votes at once",
        "W5",
        "server/test_admission.py",
        (
            "server.admission:Admission._confirmed_by_all",
            "not meta.joined and others <= self._confirmed",
            "not meta.joined",
        ),
    ),
    scripted(
        "one other member's word is enough to vote",
        "W5",
        "server/test_admission.py",
        (
            "server.admission:Admission._confirmed_by_all",
            "others <= self._confirmed",
            "bool(others & self._confirmed)",
        ),
    ),
    scripted(
        "another directory under a known id is welcome",
        "W5",
        "server/test_admission.py",
        ("server.admission:Admission._meet", "elif met != store_id:", "elif False:"),
    ),
    scripted(
        "which directories were met is forgotten in a restart",
        "W5",
        "server/test_admission.py",
        (
            "server.admission:Admission._meet",
            "self._write_meta(",
            "self._directory.meta = (",
        ),
    ),
    scripted(
        "the log's word on a directory is ignored",
        "W5",
        "server/test_admission.py",
        (
            "replica.identity:exchanged",
            "if member is not None and member.store_id and member.store_id != store_id:",
            "if False:",
        ),
    ),
    scripted(
        "a removed node is welcome",
        "M1",
        "server/test_admission.py",
        ("replica.identity:stranger", "if node in configuration.removed:", "if False:"),
    ),
    scripted(
        "a log without its identity is a fresh start",
        "W5",
        "storage/test_datadir.py::test_a_log_without_meta_is_no_fresh_start",
        ("storage.datadir:DataDirectory._read", "if has_log:", "if False:"),
    ),
    scripted(
        "an identity without its log is a fresh start",
        "W5",
        "storage/test_datadir.py::test_meta_of_a_member_without_its_log_is_no_fresh_start",
        (
            "storage.datadir:DataDirectory._read",
            "if not has_log and (meta.admitted or meta.cluster_id or meta.met or meta.restored):",
            "if False:",
        ),
    ),
    scripted(
        "a node that missed a recovery is not told that it is out",
        "M4",
        "server/test_admission_recovered.py",
        (
            "server.admission:Admission.answer",
            "if hello.cluster_id in self._replica.configuration.former:",
            "if False:",
        ),
    ),
)
