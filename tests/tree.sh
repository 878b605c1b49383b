#!/bin/sh
# Checks those rules of CONTRIBUTING.md for the tree that no compiler checks.
set -eu
cd "$(dirname "$0")/.."
. packaging/crates.sh

status=0
# complain RULE: reports each file on stdin, one a line, for violating the rule.
complain() {
    while read -r offender; do
        [ -n "$offender" ] || continue
        echo "stalld: $offender: $1" >&2
        status=1
    done
}

rust=$(find . -path ./target -prune -o -name '*.rs' -print | sed 's|^\./||')

# Matches `unsafe` only with what follows it in code, so that prose may mention it.
complain "unsafe code belongs in src/sys or ffi/src (or a test)" <<END
$(echo "$rust" | grep -v '^src/sys/\|^ffi/src/\|^tests/\|^fuzz/' | xargs grep -nE '^[^/]*\bunsafe( *\{| +(fn|impl|extern|trait)\b|\()' || true)
END

complain "tests/skips names a test that does not exist" <<END
$(sed '/^#/d; s/ |.*//' tests/skips | while read -r name; do
    grep -rqE "^ *fn ${name##*::}\(" src tests || echo "$name"
done)
END

complain "a test that does not run must not look like a pass: list it in tests/skips" <<END
$(grep -rnE 'println!\("(skipped|left out)' src ffi/src tests || true)
END

complain "pip takes only what is pinned by version and hash: use --require-hashes" <<END
$(grep -rn 'pip.* install ' .ci packaging tests --include='*.sh' --include=run | grep -v -e --require-hashes -e tests/tree.sh || true)
END

complain "each line pins a version" <<END
$(sed 's/^ .*//; s/^#.*//' .ci/linters.txt | grep -nv '^$\|^[a-z-]*==[0-9.]* \\$' | sed 's|^|.ci/linters.txt:|' || true)
END

complain "#[ignore] without a reason" <<END
$(echo "$rust" | xargs grep -nE '#\[ignore\]' || true)
END

if [ -d bpf ]; then
    complain "line 1 must say: SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause" <<END
$(for file in bpf/*.[ch] tests/rig/*.bpf.c; do
    head -n 1 "$file" | grep -q 'SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause' || echo "$file"
done)
END
fi

complain "more than 250 inputs or 250 KiB: 'sh fuzz/fuzz.sh --merge TARGET' leaves out what adds nothing" <<END
$(for corpus in fuzz/corpus/*; do
    find "$corpus" -type f -exec cat {} + | wc -c | awk -v count="$(find "$corpus" -type f | wc -l)" -v name="$corpus" \
        '$1 > 250 * 1024 || count > 250 { print name }'
done)
END

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
complain "the version is not that of Cargo.toml" <<END
$(grep -q "^Version:  *$version\$" packaging/rpm/stalld.spec || echo packaging/rpm/stalld.spec)
$(grep -q "image: stalld:$version\$" packaging/oci/daemonset.yaml || echo packaging/oci/daemonset.yaml)
$(head -n 1 packaging/debian/changelog | grep -q "^stalld ($version-" || echo packaging/debian/changelog)
END

complain "packaging/rpm/stalld.spec and cargo do not agree that this is linked: write there what is, as bundled(...)" <<END
$({
    linked_crates --locked | sed 's/^\([^|]*\)|\([^|]*\).*/crate(\1) = \2/'
    in_libbpf_sys "$(directory_of libbpf-sys- --locked)" | sed 's/^\([^|]*\)|\([^|]*\).*/\1 = \2/'
    sed -n 's/^Provides: *bundled(\(.*\)) = /\1 = /p' packaging/rpm/stalld.spec
} | sort | uniq -u)
END

complain "packaging/debian/copyright says nothing of this crate" <<END
$(awk '$1 == "name" { name = $3 } $1 == "source" { print name }' Cargo.lock | tr -d '"' | sort -u | while read -r crate; do
    grep -q "vendor/$crate-[*?]" packaging/debian/copyright || echo "$crate"
done)
END
exit $status
