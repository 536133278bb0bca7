"""Which unknown fields are known to do no harm.

An unknown field is refused: it is a slip of the pen more often than not, and an order that silently lacks what it asked
for is worse than none. Public files carry four kinds of fields that Akash skips and that say plainly where they come
from; those get a warning: words of Compose files and Dockerfiles, words of Kubernetes, words of SDL itself that stand
where they mean nothing, and words that only describe. A field that starts with ``x-`` is the tenant's own note, as in
Compose.
"""

from typing import Final

_COMPOSE: Final = (
    "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent cmd command configs container_name "
    "cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset credential_spec "
    "depends_on deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname driver_opts entrypoint "
    "env_file environment expose extends external_links extra_hosts gpus group_add healthcheck hostname init ipc "
    "isolation label_file labels links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit "
    "network_mode networks oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_stop privileged "
    "pull_policy read_only restart runtime scale secrets security_opt shm_size stdin_open stop_grace_period stop_signal "
    "storage_opt sysctls tmpfs tty ulimits user userns_mode uts volumes volumes_from working_dir"
)
_KUBERNETES: Final = (
    "imagePullPolicy imagePullSecrets initContainers lifecycle livenessProbe limits namespace nodeSelector readinessProbe "
    "replicas requests restartPolicy securityContext selector startupProbe strategy tolerations volumeMounts"
)
_SDL: Final = (
    "accept args as attributes class compute count cpu credentials denom dependencies deployment endpoints env expose "
    "global gpu http_options image ip kind memory mount params persistent placement port pricing profile profiles proto "
    "resources service services signedBy size storage to units version"
)


_DESCRIPTIONS: Final = "author description metadata name protocol tags title workdir"


def _plain(key: str) -> str:
    """A key as people mean it, however it is joined: ``depends-on`` is ``depends_on``."""
    return key.replace("-", "").replace("_", "").lower()


_KNOWN: Final = frozenset(_plain(word) for word in f"{_COMPOSE} {_KUBERNETES} {_SDL} {_DESCRIPTIONS}".split())


def is_harmless(key: str) -> bool:
    """Whether an unknown field comes from another format, or stands in another place of this one, and is skipped."""
    return key.startswith("x-") or _plain(key) in _KNOWN
