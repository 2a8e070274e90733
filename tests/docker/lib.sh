# A Docker engine, images and a node for the script tests; sourced behind scripts/lib.sh.
# shellcheck shell=bash
#
#   engine               starts a private dockerd (data in $T, socket and runtime state in a short directory), or uses
#                        the one that ICECORE_TEST_DOCKER names; sets DOCKER_HOST
#   images               builds icecore-test/postgres:15 and icecore-test/sleeper, from this machine's files alone
#   image_postgres_old   builds icecore-test/postgres:15.1, whose tools do not know \restrict
#   node_new DIRECTORY      a compose project shaped like pyaleph's: docker-compose.yml, config.yml, keys/
#   node_up DIRECTORY       docker-compose up, and waits for the database
#   compose DIRECTORY …     docker-compose of that project
#   node_fill [SCALE]    file storage, kubo's repository and rows that agree; SCALE 1 is the full size
#   hour [SECONDS]       an hour of writes; node_data has the generator's other commands
#   pg [PSQL OPTION]…    psql in the database's container; sql on stdin
#   volume NAME          where a volume of the project lies on this machine
#
# A private engine has no network and leaves the machine's firewall alone: all goes through `docker exec`.

DOCKER_TESTS=$TESTS/docker
PROJECT=${PROJECT:-pyaleph}
POSTGRES=${PROJECT}_postgres_1
PG_BIN=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1 || true)

# ------------------------------------------------------------------------------------------------------------ engine

engine() {
    local tool
    for tool in docker dockerd docker-compose busybox; do
        command -v "$tool" >/dev/null || die "no $tool on this machine (tests/run installs it)"
    done
    export DOCKER_CONFIG=$T/docker-config COMPOSE_PROJECT_NAME=$PROJECT COMPOSE_INTERACTIVE_NO_CLI=1
    unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH DOCKER_API_VERSION COMPOSE_FILE
    mkdir -p "$DOCKER_CONFIG"
    if [[ -n ${ICECORE_TEST_DOCKER-} ]]; then
        export DOCKER_HOST=$ICECORE_TEST_DOCKER
        docker info >/dev/null 2>"$T/docker.err" || die "no Docker engine at $DOCKER_HOST: $(tail -n 1 "$T/docker.err")"
        [[ -z $(docker ps -aq --filter "label=com.docker.compose.project=$PROJECT") ]] ||
            die "the engine at $DOCKER_HOST has containers of a project $PROJECT; another is PROJECT=…"
        cleanups+=("node_gone")
        return
    fi

    cgroups
    # Sockets have short names only.
    ENGINE=$(mktemp -d /tmp/icecore-docker.XXXXXX)
    mkdir "$ENGINE/exec" "$T/docker-data"
    mount -t tmpfs -o size=64m,mode=755 tmpfs "$ENGINE/exec" || die "cannot mount a tmpfs for the engine's state"
    # Volumes of many small files take minutes to remove from a disk that others use. Where memory is scarce they lie on it.
    if (($(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo) > 7 << 20)); then
        mount -t tmpfs -o size=5g,mode=711 tmpfs "$T/docker-data" || die "cannot mount a tmpfs for the engine's data"
    fi
    export DOCKER_HOST=unix://$ENGINE/docker.sock
    cleanups+=("engine_stop")
    dockerd --data-root "$T/docker-data" --exec-root "$ENGINE/exec" -H "$DOCKER_HOST" --pidfile "$ENGINE/pid" \
        --containerd-namespace "icecore-$$" --containerd-plugins-namespace "icecore-plugins-$$" \
        --bridge none --iptables=false --ip-forward=false --ip-masq=false \
        >"$T/dockerd.log" 2>&1 </dev/null &
    ENGINE_PID=$!
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        ! docker version >/dev/null 2>&1 || return 0
        kill -0 "$ENGINE_PID" 2>/dev/null || break
        sleep 0.2
    done
    die "the Docker engine does not start: $(grep -iE 'fail|error' "$T/dockerd.log" | tail -n 3 | tr '\n' '|')"
}

# A bare container or a minimal machine may have no control groups mounted; the engine wants them.
cgroups() {
    ! grep -qE ' cgroup2? ' /proc/mounts || return 0
    if mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null; then
        cleanups+=("umount /sys/fs/cgroup")
        return 0
    fi
    mount -t tmpfs cgroup /sys/fs/cgroup || return 0
    cleanups+=("umount -R /sys/fs/cgroup")
    local name
    for name in $(awk '!/^#/ && $4 == 1 { print $1 }' /proc/cgroups); do
        mkdir -p "/sys/fs/cgroup/$name"
        mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" || rmdir "/sys/fs/cgroup/$name"
    done
}

engine_stop() {
    local ids tries below
    mapfile -t ids < <(docker ps -aq 2>/dev/null)
    ((${#ids[@]} == 0)) || docker rm -f "${ids[@]}" >/dev/null 2>&1
    kill "$ENGINE_PID" 2>/dev/null
    for ((tries = 0; tries < 100; tries++)); do
        kill -0 "$ENGINE_PID" 2>/dev/null || break
        sleep 0.2
    done
    kill -KILL "$ENGINE_PID" 2>/dev/null
    # What a hard end leaves mounted, the deepest first.
    while read -r below; do
        umount -l "$below" 2>/dev/null
    done < <(awk -v a="$T/docker-data" -v b="$ENGINE/exec" 'index($2, a) == 1 || index($2, b) == 1 { print $2 }' /proc/mounts | sort -r)
    [[ -n ${KEEP-} ]] || rm -rf --one-file-system "$ENGINE" "$T/docker-data"
}

# Everything of the project, on an engine that is not ours to end.
node_gone() {
    local ids
    mapfile -t ids < <(docker ps -aq --filter "label=com.docker.compose.project=$PROJECT")
    ((${#ids[@]} == 0)) || docker rm -f "${ids[@]}" >/dev/null 2>&1
    mapfile -t ids < <(docker volume ls -q --filter "label=com.docker.compose.project=$PROJECT")
    ((${#ids[@]} == 0)) || docker volume rm "${ids[@]}" >/dev/null 2>&1
}

# ------------------------------------------------------------------------------------------------------------ images

# with_libraries ROOT PROGRAM…: copies programs and the shared libraries they name.
with_libraries() {
    local root=$1
    shift
    cp -L --parents "$@" "$root"
    ldd "$@" 2>/dev/null | grep -v ':$' | grep -oE '/[^ )]+\.so[^ )]*' | sort -u | xargs -r cp -L --parents -t "$root"
}

# root_directory ROOT: what every container has: busybox as shell and tools, users.
root_directory() {
    mkdir -p "$1"/{bin,etc,tmp,root,proc,sys,dev,run,var/run,usr/bin}
    chmod 1777 "$1/tmp"
    cp "$(command -v busybox)" "$1/bin/busybox"
    "$1/bin/busybox" --list | grep -vxE 'busybox|setpriv|su' | while read -r name; do
        ln -s busybox "$1/bin/$name"
    done
    ldd "$1/bin/busybox" >/dev/null 2>&1 && with_libraries "$1" "$(command -v busybox)"
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'postgres:x:999:999::/var/lib/postgresql:/bin/sh' >"$1/etc/passwd"
    printf '%s\n' 'root:x:0:' 'postgres:x:999:' >"$1/etc/group"
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$1/etc/nsswitch.conf"
}

# import ROOT TAG CHANGE…
import() {
    local root=$1 tag=$2 changes=() change
    shift 2
    for change in "$@"; do
        changes+=(-c "$change")
    done
    tar --numeric-owner --owner=0 --group=0 -C "$root" -cf - . | docker import "${changes[@]}" - "$tag" >/dev/null ||
        die "docker import of $tag"
}

postgres_directory() {
    local root=$1 share
    [[ -x $PG_BIN/initdb ]] || die "no PostgreSQL server on this machine"
    share=$("$PG_BIN/pg_config" --sharedir 2>/dev/null || echo "/usr/share/postgresql/$(basename "$(dirname "$PG_BIN")")")
    root_directory "$root"
    # The just-in-time compiler is large and the server does without.
    mapfile -t modules < <(find "$(dirname "$PG_BIN")/lib" -maxdepth 1 -name '*.so' ! -name 'llvmjit*')
    with_libraries "$root" "$PG_BIN"/{initdb,postgres,psql,pg_ctl,pg_dump,pg_dumpall,pg_isready,createdb,dropdb,pgbench} \
        "$(command -v setpriv)" "${modules[@]}"
    mkdir -p "$root$share" "$root/usr/share" "$root/usr/lib/locale"
    tar -C "$share" --exclude=./man -chf - . | tar -C "$root$share" -xf -
    [[ ! -d /usr/share/zoneinfo ]] || cp -a /usr/share/zoneinfo "$root/usr/share/"
    [[ ! -d /usr/lib/locale/C.utf8 ]] || cp -a /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"
    mkdir -p "$root/var/lib/postgresql/data" "$root/var/run/postgresql" "$root/docker-entrypoint-initdb.d"
    install -m 755 "$DOCKER_TESTS/postgres-entrypoint.sh" "$root/bin/docker-entrypoint.sh"
    ln -s /bin/docker-entrypoint.sh "$root/usr/bin/docker-entrypoint.sh"
}

postgres_import() {
    import "$1" "$2" "ENV PATH=$PG_BIN:/usr/bin:/bin" "ENV PGDATA=/var/lib/postgresql/data" "ENV LANG=C.UTF-8" \
        "VOLUME /var/lib/postgresql/data" "ENTRYPOINT [\"docker-entrypoint.sh\"]" "CMD [\"postgres\"]"
}

images() {
    local root=$T/image
    postgres_directory "$root"
    postgres_import "$root" icecore-test/postgres:15
    rm -rf "$root"

    root_directory "$root"
    install -m 755 "$DOCKER_TESTS/sleeper.sh" "$root/bin/sleeper"
    import "$root" icecore-test/sleeper:latest "ENV PATH=/usr/bin:/bin" "ENTRYPOINT [\"/bin/sleeper\"]"
    rm -rf "$root"
}

image_postgres_old() {
    local root=$T/image-old name
    postgres_directory "$root"
    with_libraries "$root" "$(command -v sed)"
    mkdir "$root$PG_BIN/../new"
    for name in psql pg_dump pg_dumpall; do
        mv "$root$PG_BIN/$name" "$root$PG_BIN/../new/$name"
        install -m 755 "$DOCKER_TESTS/postgres-old.sh" "$root$PG_BIN/$name"
    done
    postgres_import "$root" icecore-test/postgres:15.1
    rm -rf "$root"
}

# -------------------------------------------------------------------------------------------------------------- node

node_new() {
    mkdir -p "$1/keys"
    cp "$DOCKER_TESTS/compose/docker-compose.yml" "$DOCKER_TESTS/compose/config.yml" "$1/"
    python3 "$DOCKER_TESTS/node_data.py" keys "$1/keys"
}

compose() {
    local directory=$1
    shift
    (cd "$directory" && docker-compose -p "$PROJECT" "$@" </dev/null)
}

node_up() {
    compose "$1" up -d >"$T/compose.log" 2>&1 || die "docker-compose up: $(tail -n 3 "$T/compose.log" | tr '\n' '|')"
    database_ready "$POSTGRES"
}

# The official image runs a server without network while it initialises, and ends it: its process is then not number 1.
database_ready() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        if docker exec "$1" sh -c 'head -n 1 "$PGDATA/postmaster.pid" | grep -qx 1 && pg_isready -q -U aleph' >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.2
    done
    die "no database in $1: $(docker logs --tail 3 "$1" 2>&1 | tr '\n' '|')"
}

pg() {
    docker exec -i "$POSTGRES" psql -X -q -v ON_ERROR_STOP=1 -U aleph -d aleph "$@"
}

# pg_value SQL: one value.
pg_value() {
    pg -At -c "$1" </dev/null
}

# node_fill [SCALE]: file storage, kubo's repository and the database; what was made is remembered in $T/state.
node_fill() {
    local amounts
    mapfile -t amounts < <(python3 -c 'import sys; s = float(sys.argv[1]); print(*(max(20, int(n * s)) for n in (50_000, 20_000, 30_000)), sep="\n")' "${1:-1}")
    node_data make --local "$(volume pyaleph-local-storage)" --kubo "$(volume pyaleph-ipfs)" --seed "${SEED:-1}" \
        --files "${amounts[0]}" --blocks "${amounts[1]}" --posts "${amounts[2]}" || die "the generator of file storage"
    node_data sql | pg || die "the generator's rows do not load"
}

# node_data COMMAND [ARGUMENT]…: the generator, on this node's state.
node_data() {
    local command=$1
    shift
    python3 "$DOCKER_TESTS/node_data.py" "$command" --state "$T/state" "$@"
}

# hour [SECONDS]: an hour of writes, spread over so many seconds.
hour() {
    node_data mutate --seconds "${1:-0}" | pg
}

# dump_now: the database as it is, by the container's own tools, without the random words.
dump_now() {
    docker exec -i "${1:-$POSTGRES}" pg_dumpall -c -U aleph </dev/null | unrestricted
}

unrestricted() {
    sed -E '/^\\(un)?restrict /d'
}

# same_dump SNAP TITLE: the database's dump is what the snapshot holds.
same_dump() {
    ice cat "$1:db" 2>"$T/err" | unrestricted >"$T/dump.stored" || true
    dump_now >"$T/dump.live" || true
    if [[ ! -s $T/dump.stored ]]; then
        fail "$2: no stored dump: $(tail -n 1 "$T/err")"
    else
        same_file "$T/dump.stored" "$T/dump.live" "$2 ($(stat -c %s "$T/dump.live") bytes)"
    fi
}

# same_rows SNAP TITLE: the same of a database that was loaded from a dump, which has its rows in another order.
same_rows() {
    ice cat "$1:db" 2>"$T/err" | unrestricted | python3 "$DOCKER_TESTS/rows_in_order.py" >"$T/dump.stored" || true
    dump_now | python3 "$DOCKER_TESTS/rows_in_order.py" >"$T/dump.live" || true
    if [[ ! -s $T/dump.stored ]]; then
        fail "$2: no stored dump: $(tail -n 1 "$T/err")"
    else
        same_file "$T/dump.stored" "$T/dump.live" "$2 ($(stat -c %s "$T/dump.live") bytes)"
    fi
}

# What of kubo's repository is no backup's business.
KUBO_JUNK=(/repo.lock /api /gateway /datastore/LOCK /blocks/.temp/ '/blocks/*/put-*' /provider-keystore/ /autoconf/ /telemetry_uuid)

# keep_truth NAME DIRECTORY: file storage and keys as they are now, to judge a restore by.
keep_truth() {
    local to=$T/docker-data/truth-$1 junk=()
    junk=("${KUBO_JUNK[@]/#/--exclude=}")
    mkdir -p "$to"
    rsync -aHAX "$(volume pyaleph-local-storage)/" "$to/local/"
    rsync -aHAX "${junk[@]}" "$(volume pyaleph-ipfs)/" "$to/ipfs/"
    rsync -aHAX "$2/keys" "$2/config.yml" "$to/"
}

# same_node NAME DIRECTORY TITLE: what lies there is what keep_truth kept, both ways.
same_node() {
    local to=$T/docker-data/truth-$1
    same_tree "$to/local" "$(volume pyaleph-local-storage)" "$3: local storage"
    same_tree "$to/ipfs" "$(volume pyaleph-ipfs)" "$3: kubo's repository"
    same_tree "$to/keys" "$2/keys" "$3: keys"
    equal "$(stat -c '%a:%u:%g' "$2"/keys/* | sort -u)" 600:1000:1000 "$3: keys are their owner's alone"
    same_file "$to/config.yml" "$2/config.yml" "$3: config.yml"
}

volume() {
    docker volume inspect --format '{{.Mountpoint}}' "${PROJECT}_$1"
}
