#!/bin/sh
# This is told.
echo "# nobody" '# nobody' "${1#nobody }" # The next look.
