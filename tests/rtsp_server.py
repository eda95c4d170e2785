"""GStreamer's RTSP server, run by the system's Python, which has the bindings.

`rtsp_server.py PORT FILE RECORDED [USER PASSWORD]` serves FILE (MPEG-TS), again and again over TCP and UDP, at /clip if
it holds H.264 and at /hevc if it holds H.265, and writes what is published to /publish into RECORDED. Prints "ready"
when it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


class Looping(GstRtspServer.RTSPMediaFactory):
    """One pipeline for all clients: the file's pictures as they are, in real time, over and over."""

    def __init__(self, path: str, codec: str) -> None:
        super().__init__()
        self._path = path
        self._codec = codec
        self.set_shared(True)

    def do_create_element(self, _url: object) -> object:
        """The pipeline that is played."""
        launch = (
            f'( multifilesrc location="{self._path}" loop=true ! tsdemux ! {self._codec}parse config-interval=1 '
            f"! identity sync=true ! rtp{self._codec}pay name=pay0 pt=96 )"
        )
        return Gst.parse_launch(launch)


def recording(path: str) -> object:
    """Takes what a client publishes and writes it as MPEG-TS."""
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(
        f'( rtph264depay name=depay0 ! h264parse ! mpegtsmux ! filesink location="{path}" sync=false buffer-mode=2 )'
    )
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    return factory


def main(port: str, path: str, recorded: str, user: str = "", password: str = "") -> None:
    """Serve until killed."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = Looping(path, "h264")
    if user:
        auth = GstRtspServer.RTSPAuth.new()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken.new()
        token.set_string("media.factory.role", "viewer")
        auth.add_digest(user, password, token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions.new()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/clip", factory)
    server.get_mount_points().add_factory("/hevc", Looping(path, "h265"))
    server.get_mount_points().add_factory("/publish", recording(recorded))
    server.attach(None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


main(*sys.argv[1:])
