# toml_for_node DIRECTORY REPO: an icecore.toml written by hand, as the guide shows it; sourced.
# shellcheck shell=bash
toml_for_node() {
    local name junk
    printf -v junk '"%s", ' "${KUBO_JUNK[@]}"
    cat <<TOML
repository = "$2"

[[source]]
name = "db"
kind = "postgresql"
container = "$POSTGRES"
user = "aleph"

[[source]]
name = "local-storage"
kind = "tree"
volume = "${PROJECT}_pyaleph-local-storage"
immutable = true
not_older_than = "db"
exclude = ["*.tmp"]

[[source]]
name = "ipfs"
kind = "tree"
volume = "${PROJECT}_pyaleph-ipfs"
immutable = true
not_older_than = "db"
exclude = [${junk%, }]

[[source]]
name = "keys"
kind = "tree"
path = "$1/keys"
unchanged = "alarm"

[[source]]
name = "config"
kind = "tree"
path = "$1"
only = ["config.yml", "docker-compose.yml"]

[retention]
keep_hourly = 48
keep_daily = 14

[node]
database = "db"
local_storage = "local-storage"
ipfs = "ipfs"
keys = "keys"
config = "config"
project = "$PROJECT"
writers = [$(for name in pyaleph pyaleph-api ipfs; do printf '"%s_%s_1", ' "$PROJECT" "$name"; done)]
TOML
}
