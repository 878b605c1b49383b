#!/bin/sh
# Checks the crates by deny.toml: their licences and sources, and their known flaws if cargo-deny
# has fetched the list of flaws. CARGO is the cargo command to ask.
set -eu
cd "$(dirname "$0")/.."

if ! command -v cargo-deny >/dev/null; then
    echo "stalld: left out, as cargo-deny is not installed: the licences and the sources of crates"
    exit
fi
${CARGO:-cargo} deny --locked --workspace check licenses bans sources
for list in "${CARGO_HOME:-$HOME/.cargo}"/advisory-dbs/*/; do
    if [ -d "$list" ]; then
        exec ${CARGO:-cargo} deny --locked --offline --workspace check advisories
    fi
done
echo "stalld: left out, as there is no list of them ('cargo deny fetch' gets it): known flaws of crates"
