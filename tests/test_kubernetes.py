"""docs/kubernetes: as Kubernetes, KubeRay and Ray's autoscaler read it, and what we promise of it."""

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "kubernetes"
KUBERAY = Draft202012Validator(json.loads((ROOT / "tests" / "kuberay.json").read_text()))
KUBERNETES = "1.34"


@pytest.fixture
def job():
    return yaml.safe_load((FOLDER / "rayjob.yaml").read_text())


@pytest.fixture
def nightly():
    return {each["kind"] + " " + each["metadata"]["name"]: each for each in yaml.safe_load_all((FOLDER / "nightly.yaml").read_text())}


@pytest.fixture
def pods(job):
    """The pods of head and worker groups, by name."""
    cluster = job["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"]["template"], **{g["groupName"]: g["template"] for g in cluster["workerGroupSpecs"]}}


@pytest.fixture
def script(nightly):
    (container,) = nightly["CronJob ugrie-night"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return [*container["command"], *container["args"]]


def test_kuberay_knows_every_field(job):
    KUBERAY.validate(job)


def test_a_raycronjob_can_be_made_of_it(job):
    KUBERAY.validate(job | {"kind": "RayCronJob", "spec": {"schedule": "0 1 * * *", "timeZone": "Etc/UTC", "jobTemplate": job["spec"]}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("backofflimit", 3),
        ("backoffLimit", "3"),
        ("rayClusterSpec/authOptions/mode", "password"),
        ("rayClusterSpec/workerGroupSpecs", [{}]),
    ],
)
def test_a_field_that_kuberay_does_not_know_is_found(job, path, value):
    *above, last = path.split("/")
    part = job["spec"]
    for key in above:
        part = part[key]
    part[last] = value
    assert not KUBERAY.is_valid(job)


def test_kubernetes_knows_every_field_of_the_pods(pods):
    assert len(pods) == 4
    for name, template in pods.items():
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_kubernetes_knows_every_field_of_the_schedule(nightly):
    assert len(nightly) == 5
    for each in nightly.values():
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    broken = copy.deepcopy(nightly["CronJob ugrie-night"])
    broken["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_rays_autoscaler_reads_what_the_entrypoint_says(job):
    """The autoscaler's own reading of the cluster: a head without CPUs, and at the largest as many CPUs and GPUs as the run is told of."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.util import validate_config

    cluster = {"metadata": {"name": "night", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(config)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == 0
    size = {kind: sum(each["max_workers"] * each["resources"].get(kind, 0) for each in types.values()) for kind in ("CPU", "GPU")}
    assert f"--cpus {size['CPU']} --gpus {size['GPU']} " in job["spec"]["entrypoint"]
    assert sum(each["min_workers"] for each in types.values()) == types["gpu-on-demand"]["min_workers"] == 1


def test_the_entrypoint_is_a_command_of_ours_that_goes_on_when_it_is_tried_again(job):
    from pipeline.config import AnnotateConfig

    python, path, *flags = shlex.split(job["spec"]["entrypoint"])
    assert python == "python"
    assert (ROOT / "jobs" / Path(path).name).is_file()
    names = [flag.removeprefix("--").replace("-", "_") for flag in flags if flag.startswith("--")]
    assert set(names) <= set(AnnotateConfig.model_fields)
    assert "resume" in names
    assert job["spec"]["backoffLimit"] > 0
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def test_pods_may_do_no_more_than_they_must(pods, nightly):
    assert job_images(pods) == {"REGISTRY/ugrie:0.1.0-cu130"}
    for spec in [*(template["spec"] for template in pods.values()), night_pod(nightly)]:
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}
    assert {template["spec"]["serviceAccountName"] for template in pods.values()} == {"ugrie"}
    assert night_pod(nightly)["serviceAccountName"] == "ugrie-schedule"
    assert nightly["Role ugrie-schedule"]["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "delete", "get", "list", "watch"]}
    ]
    text = "".join(path.read_text() for path in FOLDER.iterdir())
    assert not re.search(r"kind: Secret|AWS_SECRET|AKIA|privileged: true|:latest\b", text)


def job_images(pods):
    return {container["image"] for template in pods.values() for container in template["spec"]["containers"]}


def night_pod(nightly):
    return nightly["CronJob ugrie-night"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_the_head_and_the_floor_are_on_demand_and_gpus_are_asked_for_where_they_are_tolerated(pods):
    kinds = {name: template["spec"]["nodeSelector"]["eks.amazonaws.com/capacityType"] for name, template in pods.items()}
    assert kinds == {"head": "ON_DEMAND", "gpu-on-demand": "ON_DEMAND", "gpu-spot": "SPOT", "cpu-spot": "SPOT"}
    for name, template in pods.items():
        (container,) = template["spec"]["containers"]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == name.startswith("gpu") == ("tolerations" in template["spec"])


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A kubectl that keeps one RayJob in a file, whose state moves on with each look at it. Returns what it was asked and given."""
    states = tmp_path / "states"
    (tmp_path / "kubectl").write_text(
        f"""#!/bin/sh
cd {tmp_path}; echo "$*" >> asked
case "$*" in
  "get rayjob night-7") test -e job ;;
  create*) cat > job ;;
  *jobDeploymentStatus*) state=$(head -1 states); sed -i 1d states; test "$state" != unreachable || exit 1; printf %s "$state" ;;
esac
"""
    )
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    for program in ("kubectl", "sleep"):
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("NIGHT", "night-7")

    def run(script, *moves):
        states.write_text("".join(f"{move}\n" for move in moves))
        (tmp_path / "asked").write_text("")
        command = [*script[:-1], script[-1].replace("/night/rayjob.yaml", str(FOLDER / "rayjob.yaml"))]
        code = subprocess.run(command, capture_output=True, timeout=30).returncode
        return code, (tmp_path / "asked").read_text().splitlines(), yaml.safe_load((tmp_path / "job").read_text())

    return run


def test_a_night_ends_as_its_rayjob_does(script, kubectl, job):
    code, asked, made = kubectl(script, "Initializing", "Running", "unreachable", "Retrying", "Running", "Complete")
    assert code == 0
    assert made == job | {"metadata": job["metadata"] | {"name": "night-7"}}
    assert asked[1].startswith("delete rayjob --selector app.kubernetes.io/name=ugrie")
    assert job["metadata"]["labels"] == {"app.kubernetes.io/name": "ugrie"}
    assert asked[2].startswith("create")


def test_a_night_that_failed_is_a_failed_job_and_one_that_is_waited_for_again_is_not_begun_again(script, kubectl):
    assert kubectl(script, "Running", "Failed")[0] == 1
    code, asked, _ = kubectl(script, "", "Running", "Complete")  # the pod that waited was evicted, and another waits
    assert code == 0
    assert not [line for line in asked if line.startswith(("create", "delete"))]
