#!/usr/bin/python3
"""Checks the container image and the manifest in packaging/oci, as root: oci.py ROOT

No engine is needed: this makes the tree of the image in ROOT, and runs the image's program there
with the rights that the manifest gives."""

import ctypes
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import yaml

os.chdir(pathlib.Path(__file__).parent.parent)
root = pathlib.Path(sys.argv[1]).absolute()
libc = ctypes.CDLL(None, use_errno=True)

CAPABILITIES = {"IPC_LOCK": 14, "SYS_NICE": 23, "SYS_RESOURCE": 24, "PERFMON": 38, "BPF": 39}
LAST_CAPABILITY = int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text())
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, CLONE_NEWNS = 24, 38, 0x20000

status = 0


def check(what, holds, output=""):
    global status
    print(f"  {'ok     ' if holds else 'FAILED '} {what}")
    if not holds:
        status = 1
        print(output, end="")


def build_image():
    """Executes the Dockerfile, and returns the command of a container."""
    command = {}
    for line in pathlib.Path("packaging/oci/Dockerfile").read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(pathlib.Path(source), target)
        elif word in ("ENTRYPOINT", "CMD"):
            command[word] = json.loads(rest)
        elif word == "FROM":
            check("the image begins with nothing", rest == "scratch")
        elif word not in ("#", "LABEL", ""):
            check(f"the Dockerfile has nothing that this test does not know: {line}", False)
    return command["ENTRYPOINT"], command["CMD"]


def copy(source, target):
    inside = root / target.lstrip("/")
    if source.is_dir():
        shutil.copytree(source, inside, dirs_exist_ok=True)
        return
    if target.endswith("/"):
        inside = inside / source.name
    inside.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, inside)


def check_what_is_inside():
    documents = root / "usr/share/doc/stalld"
    files = [documents / "stalld.cdx.json", documents / "NOTICES.txt"]
    command = [sys.executable, "tests/sbom.py", *files, "libbpf", "elfutils", "zlib"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check("it has a true list of what is inside, and the licences of that", done.returncode == 0, done.stdout)


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def mount_as_a_runtime_does():
    """Mounts in a namespace of this process, with RT throttling off, as a node has it."""
    if libc.unshare(CLONE_NEWNS) != 0:
        sys.exit("oci.py: this needs root")
    mount("--make-rprivate", "/")
    for directory in ("proc", "sys", "dev", "run/stalld"):
        (root / directory).mkdir(parents=True)
    mount("--bind", str(root), str(root))
    mount("-t", "proc", "proc", f"{root}/proc")
    mount("-t", "sysfs", "-o", "ro", "sysfs", f"{root}/sys")
    mount("-t", "tmpfs", "tmpfs", f"{root}/run/stalld")
    setting = root / "run/stalld/off"
    setting.write_text("-1\n")
    mount("--bind", f"{root}/proc/sys", f"{root}/proc/sys")
    mount("--bind", str(setting), f"{root}/proc/sys/kernel/sched_rt_runtime_us")
    mount("-o", "remount,bind,ro", f"{root}/proc/sys")
    mount("-o", "remount,bind,ro", str(root))


def run(command, capabilities):
    def confine():
        os.chroot(root)
        os.chdir("/")
        for number in range(LAST_CAPABILITY + 1):
            if number not in capabilities:
                libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

    done = subprocess.run(command, preexec_fn=confine, env={}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


version = re.search(r'^version = "(.*)"$', pathlib.Path("Cargo.toml").read_text(), re.M).group(1)
unit = pathlib.Path("packaging/systemd/stalld.service").read_text()
unit_capabilities = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.M).group(1).replace("CAP_", "").split()

manifest = yaml.safe_load(pathlib.Path("packaging/oci/daemonset.yaml").read_text())
pod = manifest["spec"]["template"]["spec"]
(container,) = pod["containers"]
rights = container["securityContext"]
check("the manifest is a DaemonSet", (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "DaemonSet"))
labels = manifest["spec"]["template"]["metadata"]["labels"]
check("it selects its own pods", manifest["spec"]["selector"]["matchLabels"].items() <= labels.items())
check("its image is of this version", container["image"] == f"stalld:{version}")
check("it sees the tasks of the node", pod["hostPID"] is True)
check("it shares nothing else with the node", not pod.get("hostNetwork") and not pod.get("hostIPC"))
check("it is not privileged", not rights.get("privileged") and rights["allowPrivilegeEscalation"] is False)
check("its root is read-only", rights["readOnlyRootFilesystem"] is True)
check("it has a seccomp profile", rights["seccompProfile"]["type"] == "RuntimeDefault")
check("it has no token of the cluster", pod["automountServiceAccountToken"] is False)
check("all capabilities are dropped first", rights["capabilities"]["drop"] == ["ALL"])
check("its capabilities are the unit's", sorted(rights["capabilities"]["add"]) == sorted(unit_capabilities))
mounts = [(volume["name"], volume["mountPath"]) for volume in container["volumeMounts"]]
volumes = [(volume["name"], volume["hostPath"]["path"]) for volume in pod["volumes"]]
check("of the node's files it has the journal only", mounts == volumes == [("journal", "/run/stalld")])

# No distribution packages these linters, so they are used only where they are installed.
for linter, file in (("hadolint", "Dockerfile"), ("kubernetes-validate", "daemonset.yaml")):
    if shutil.which(linter):
        done = subprocess.run([linter, f"packaging/oci/{file}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        check(f"{linter} has nothing to say of the {file}", done.returncode == 0, done.stdout)

shutil.rmtree(root, ignore_errors=True)
entrypoint, _ = build_image()
check_what_is_inside()
mount_as_a_runtime_does()
granted = {CAPABILITIES[name] for name in rights["capabilities"]["add"]}
code, output = run([*entrypoint, "--version"], granted)
check("the image's program runs", code == 0 and version in output, output)
code, output = run(["/usr/bin/stallstat", "-1", "-r", "1"], granted)
check("stallstat counts in it", code == 0 and "latency" in output.lower(), output)
code, output = run([*entrypoint, *container["args"], "--check"], granted)
check("with the manifest's rights it would protect the node", code == 0, output)
for name in ("SYS_NICE", "BPF", "PERFMON"):
    code, output = run([*entrypoint, *container["args"], "--check"], granted - {CAPABILITIES[name]})
    check(f"without {name} it would not", code != 0, output)
sys.exit(status)
