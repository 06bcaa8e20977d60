#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, where they are not there yet: secrets.sh [FOLDER]
# The folder is its owner's alone. The files in it must be readable to the containers' users, who have other numbers.
set -eu
folder=${1:-$(dirname "$0")/../../secrets}
mkdir -p "$folder"
chmod 700 "$folder"

random() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }

secret() { # name, value
    [ -e "$folder/$1" ] && return
    (umask 077 && printf '%s\n' "$2" >"$folder/$1")
    chmod 444 "$folder/$1"
}

secret trivet_redis_url "redis://:$(random)@valkey:6379/0"
secret trivet_s3_secret_key "$(random)"
secret trivet_key_pepper "$(random)"
secret trivet_index_api_key "$(random)"
