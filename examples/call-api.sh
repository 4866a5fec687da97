#!/bin/sh
# Call the KlearStack API: examples/call-api.sh /PATH [more for curl]
# The token passes from one process to the other through a pipe: no argument, file or log contains it.
set -eu
path=$1
shift
klearstack-vault get --format curl | curl -fsS -K - "$KLEARSTACK_URL$path" "$@"
