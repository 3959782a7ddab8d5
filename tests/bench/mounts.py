# SPDX-License-Identifier: Apache-2.0
"""File systems mounted over a server, and how they come down again, also when the server hangs.

Cairn mounts by `cairn mount`. Of another server, nbdfuse makes a file, unless it has one, and a loop
device with direct I/O a block device: how Cairn does it where the kernel has no NBD. All of it is for
root.
"""
import os
import shutil
import subprocess

import images
import lab
import servers


def unavailable():
    """Why nothing can be mounted here, or None."""
    if os.geteuid() != 0:
        return "mounts are for root"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            return f"there is no {device}"
    for program in ("nbdfuse", "losetup", "mount"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return None


def ready(table):
    """The images of files are there and can be mounted; else it is said that the table is left out."""
    why = unavailable()
    if why:
        lab.skip(table, why)
        return False
    images.make_files()
    return True


def give_up(p, server):
    """Nothing but the end of its server frees who waits for it in the kernel: this program, or who
    unmounts."""
    servers.kill(server.pid)
    p.kill()
    p.communicate()


def run(argv, server, seconds=60):
    """What it printed."""
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    name = os.path.basename(argv[0])
    try:
        out, err = p.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        give_up(p, server)
        raise servers.Hung(f"{name} did not end within {seconds:g} s") from None
    except BaseException:
        p.kill()
        raise
    if p.returncode != 0:
        raise servers.Unavailable(f"{name}: {err.strip()[-300:]}")
    return out.strip()


def unmount(server, point):
    if not servers.run_quietly("umount", point):
        servers.kill(server.pid)
        servers.run_quietly("umount", "-l", point)


def device_under(point):
    for device, at in servers.mounts():
        if at == point:
            return device
    return ""


def mount_cairn(server, url, point):
    run([servers.CAIRN, "--socket", server.control, "mount", url, point], server)

    def down():
        device = device_under(point)
        if servers.run_quietly(servers.CAIRN, "--socket", server.control, "umount", point):
            return
        unmount(server, point)
        if device.startswith("/dev/loop"):
            servers.run_quietly("losetup", "-d", device)

    servers.undoing.append(down)


def file_of(server):
    """The export as a file."""
    if server.file:
        return server.file
    folder = server.scratch.fresh("nbdfuse")
    path, pid_file = os.path.join(folder, "image"), os.path.join(server.scratch.disk, "nbdfuse.pid")
    if os.path.exists(pid_file):
        os.unlink(pid_file)
    open(path, "w").close()
    pid = servers.launch(["nbdfuse", "-r", "--pidfile", pid_file, path, server.uri], server.log)

    def down():
        servers.run_quietly("fusermount3", "-u", path) or \
            servers.run_quietly("fusermount3", "-uz", path)
        servers.end(pid)

    servers.undoing.append(down)
    servers.wait_for(lambda: os.path.exists(pid_file) or not servers.alive(pid), 20,
                     "nbdfuse mounted nothing")
    if not servers.alive(pid):
        raise servers.Unavailable(f"nbdfuse ended: {servers.last_line(server.log)}")
    return path


def mount_loop(server, fs, point):
    loop = run(["losetup", "-r", "--direct-io=on", "-f", "--show", file_of(server)], server)
    servers.undoing.append(lambda: servers.run_quietly("losetup", "-d", loop))
    options = "ro,noload" if fs == "ext4" else "ro"
    run(["mount", "-t", fs, "-o", options, loop, point], server)
    servers.undoing.append(lambda: unmount(server, point))


def mount(server, url, fs):
    """Where it is mounted. server.stop() takes it down."""
    point = os.path.join(server.scratch.disk, "mnt")
    os.makedirs(point, exist_ok=True)
    if hasattr(server, "control"):
        mount_cairn(server, url, point)
    else:
        mount_loop(server, fs, point)
    return point
