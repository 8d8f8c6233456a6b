"""An RTSP server: GStreamer's, run as a process of its own by whichever Python has its bindings (Debian's).

    python3 rtsp_server.py PORT NAME=FILE... [--login basic|digest USER PASSWORD] [--udp]

serves each FILE as rtsp://127.0.0.1:PORT/NAME, each viewer from its beginning: an .mkv as a camera, which has no end
that is known of, an .mp4 as an archive, which says how long it is. Prints the transport (tcp or udp) of each viewer.
"""

import argparse

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

CAMERA = "( filesrc location={} ! queue ! matroskademux ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
ARCHIVE = "( filesrc location={} ! qtdemux ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
# With the queue, Matroska is read as from a pipe: then nobody knows its length.


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("streams", nargs="+")
    parser.add_argument("--login", nargs=3)
    parser.add_argument("--udp", action="store_true")
    arguments = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(arguments.port)
    if arguments.login:
        server.set_auth(login(*arguments.login))
    for stream in arguments.streams:
        name, _, path = stream.partition("=")
        factory = GstRtspServer.RTSPMediaFactory.new()
        factory.set_launch((CAMERA if path.endswith(".mkv") else ARCHIVE).format(path))
        if arguments.udp:
            factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
        if arguments.login:
            permissions = GstRtspServer.RTSPPermissions.new()
            for permission in ("media.factory.access", "media.factory.construct"):
                permissions.add_permission_for_role("viewer", permission, True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(f"/{name}", factory)
    server.connect("client-connected", lambda _, client: client.connect("setup-request", told))
    server.attach(None)
    GLib.MainLoop().run()


def told(_, context):
    tcp = context.trans.get_transport().lower_transport == GstRtsp.RTSPLowerTrans.TCP
    print("tcp" if tcp else "udp", flush=True)


def login(method, user, password):
    auth = GstRtspServer.RTSPAuth.new()
    role = GstRtspServer.RTSPToken.new()
    role.set_string("media.factory.role", "viewer")
    if method == "basic":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), role)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, role)
    return auth


main()
