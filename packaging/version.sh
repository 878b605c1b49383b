# Sets $version, and $SOURCE_DATE_EPOCH, the time of all packed files. Defines `pack`, whose
# archives depend on nothing but the files. Scripts that pack source this file.
# shellcheck shell=sh disable=SC2034
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
# In a tree that was unpacked from a tarball, all files have the time of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC

# pack FILE.tar ARGUMENTS...: makes FILE.tar.xz.
pack() {
    packed=$1
    shift
    tar --create --file "$packed" --format=gnu --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
        --numeric-owner --mode=u+rw,go+r,go-w,a-s "$@"
    xz --force --threads=1 "$packed"
}
