"""cluster.yaml and its variant for Google Cloud, as Ray's launcher reads them; and that all clusters of the documentation are alike."""

import copy
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
FILES = ["cluster.yaml", "docs/cluster-gcp.yaml"]
SECRETS = re.compile(r"AKIA|BEGIN [A-Z ]*PRIVATE KEY|secret_?(access_?)?key|password|ssh_private_key|KeyName|api_?key", re.IGNORECASE)


@pytest.fixture(params=FILES)
def name(request):
    return request.param


@pytest.fixture
def config(name):
    return yaml.safe_load((ROOT / name).read_text())


def is_spot(node: dict[str, Any]) -> bool:
    market, scheduling = node.get("InstanceMarketOptions", {}), node.get("scheduling", {})
    return market.get("MarketType") == "spot" or scheduling.get("provisioningModel") == "SPOT"


def workers(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}


def test_rays_launcher_takes_it(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == config["setup_commands"]  # and none of Ray's defaults
    assert prepared["available_node_types"]["head"]["max_workers"] == 0
    with pytest.raises(Exception, match=r"max_worker\b"):
        validate_config(prepared | {"max_worker": 1})


def test_bytecode_is_compiled_when_a_machine_is_set_up(config):
    (command,) = config["setup_commands"]
    assert "uv pip install" in command
    assert "--compile-bytecode" in command


def test_the_head_takes_no_work(config):
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}


def test_one_gpu_machine_stays_and_all_others_are_spot_and_come_and_go(config):
    floor = {name: kind for name, kind in workers(config).items() if kind["min_workers"]}
    ((_, stays),) = floor.items()
    assert stays["min_workers"] == stays["max_workers"] == 1
    assert stays["resources"]["GPU"] == 1
    assert not is_spot(stays["node_config"])
    others = [kind for name, kind in workers(config).items() if name not in floor]
    assert all(is_spot(kind["node_config"]) and kind["max_workers"] > 0 for kind in others)
    assert {kind["resources"]["GPU"] for kind in others} == {0, 1}
    assert config["max_workers"] == sum(kind["max_workers"] for kind in workers(config).values())
    assert 0 < config["idle_timeout_minutes"] <= 15


def test_the_five_lines_to_change_are_marked(name):
    assert re.findall(r"# <- (\d)", (ROOT / name).read_text()) == list("12345")


def test_machines_have_roles_and_no_keys(name, config):
    assert not SECRETS.search((ROOT / name).read_text())
    for kind in config["available_node_types"].values():
        node = kind["node_config"]
        assert node.get("IamInstanceProfile", {}).get("Name") or node["serviceAccounts"][0]["email"]
    assert config["docker"]["run_options"].count("-e RAY_AUTH_MODE=token") == 1
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_disks_hold_the_image_and_are_encrypted_on_aws():
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for kind in config["available_node_types"].values():
        (disk,) = kind["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"] == {"VolumeSize": 120, "VolumeType": "gp3", "Encrypted": True}
        assert kind["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


def test_images_have_a_ray_that_ugrie_allows():
    (wanted,) = [r for r in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"] if r.startswith("ray[")]
    allowed = SpecifierSet(wanted.split("]")[1])
    pages = [*FILES, "docs/kubernetes/rayjob.yaml"]
    versions = {v for page in pages for v in re.findall(r"(?:rayproject/ray:|rayVersion: )(\d+\.\d+\.\d+)", (ROOT / page).read_text())}
    assert len(versions) == 1
    assert versions.pop() in allowed


def test_every_command_of_the_documentation_names_the_size_that_the_clusters_grow_to(config):
    size = {kind: sum(each["max_workers"] * each["resources"][kind] for each in workers(config).values()) for kind in ("CPU", "GPU")}
    pages = [path for path in (ROOT / "docs").rglob("*") if path.is_file() and path.suffix not in (".jpg", ".png", ".svg", ".pyc")]
    named = {pair for path in pages for pair in re.findall(r"--cpus (\d+) --gpus (\d+)", path.read_text())}
    assert named == {(str(size["CPU"]), str(size["GPU"]))}


def test_a_clone_is_small_enough_for_ray_to_upload():
    """`ray job submit --working-dir .` takes at most 512 MiB; a large file that was added by mistake would cost every submission."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = [ROOT / file for file in listed.split("\0") if file]
    assert len(files) > 100
    assert sum(file.stat().st_size for file in files if file.exists()) < 100e6


def test_a_checkpoint_of_ones_own_is_not_uploaded(tmp_path):
    """Since git ignores it: docs/operating.md says what to do."""
    from ray._private.runtime_env.packaging import create_package

    clone, package = tmp_path / "clone", tmp_path / "package.zip"
    (clone / "checkpoints").mkdir(parents=True)
    for file in (".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / file, clone)
    (clone / "checkpoints" / "mine").touch()
    create_package(str(clone), package, include_gitignore=True)
    assert {file for file in zipfile.ZipFile(package).namelist() if not file.endswith("/")} == {".gitignore", "pyproject.toml"}
