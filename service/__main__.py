"""`python3 -m service`: the command line of the application."""

import argparse

from service.app import Settings, application, serve


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="service", description="The application beside a sidecar.")
    parser.add_argument("--path", required=True, help="the service's path, such as /service/1")
    parser.add_argument("--health-path", required=True, help="where it says that it serves")
    parser.add_argument("--address", required=True, help="the host's mesh address, told to clients")
    parser.add_argument("--listen", required=True, help="address of the loopback, this release's own")
    parser.add_argument("--port", required=True, type=int, help="its port there")
    args = parser.parse_args()
    serve(application(Settings(args.path, args.health_path, args.address)), args.listen, args.port)


main()
