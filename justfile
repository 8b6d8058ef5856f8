# The recipes of `./dev`. The work is done by deploy/local/stack, which needs Python's standard library only.

set positional-arguments := true

export PYTHONPATH := justfile_directory() / "deploy/local"
export PYTHONPYCACHEPREFIX := justfile_directory() / ".local/pycache"

# What shipped programs are compiled for, a name of `rustc --print target-cpus`. They say so and end on a processor
# that is older. The libraries that read JSON and bytes choose their instructions when they are compiled.
cpu := if arch() == "x86_64" { "x86-64-v3" } else { "generic" }

[private]
default:
    @just --justfile "{{ justfile() }}" --list --unsorted

# What `setup` does where nothing is missing costs well under a second. `stop`, `status`, `logs`, `env` and `wipe`
# do without it: they need nothing but Python, and must work where something is missing.
[private]
[no-exit-message]
ready:
    @exec python3 -m stack setup --fast

# check what the machine needs and install what is missing
[no-exit-message]
setup:
    @exec python3 -m stack setup

# start everything, or the named parts: kafka clickhouse postgres redis ingest rotor bulker
[no-exit-message]
start *parts: ready
    @exec python3 -m stack start "$@"

# stop everything, or the named parts
[no-exit-message]
stop *parts:
    @exec python3 -m stack stop "$@"

# stop and start everything, or the named parts
[no-exit-message]
restart *parts: ready
    @exec python3 -m stack restart "$@"

# how every part is; --json for scripts
[no-exit-message]
status *flags:
    @exec python3 -m stack status "$@"

# the log of a part; further flags go to tail, such as -f
[no-exit-message]
logs *parts:
    @exec python3 -m stack logs "$@"

# events through everything, printed as ClickHouse returns them
[no-exit-message]
demo: ready
    @exec python3 -m stack demo

# the official clients send events, and ClickHouse has them as they were sent
[no-exit-message]
clients: ready
    @exec python3 -m stack clients

# every test, on a stack of its own; arguments go to `cargo test`
[no-exit-message]
test *args: ready
    @exec python3 -m stack test "$@"

# the script crate's tests with QuickJS instead of V8
[no-exit-message]
test-quickjs *args: ready
    @exec python3 -m stack test-quickjs "$@"

# formatting, clippy, dependency rules, schemas, file lengths
[no-exit-message]
lint: ready
    @exec python3 -m stack lint

# long proofs: model, chaos, freshness, hostile; `prove NAME --help` says which flags each takes
[no-exit-message]
prove what *args: ready
    @exec python3 -m stack prove "$@"

# all programs as they are shipped, in target/dist; `./dev cpu=x86-64 build-release` for older processors
[no-exit-message]
build-release: ready
    @exec python3 -m stack build-release "{{ cpu }}"

# load on the shipped programs: `bench ingest|rotor|bulker [--help]`; other arguments go to `cargo bench`
[no-exit-message]
bench *args: ready
    @exec python3 -m stack bench "{{ cpu }}" "$@"

# a fuzz target: body, encode, frames, head or journal; `--seconds N`. Needs a nightly compiler and cargo-fuzz, and says how to get them
[no-exit-message]
fuzz target *args:
    @exec python3 -m stack fuzz "$@"

# format all Rust code
[no-exit-message]
fmt: ready
    @exec python3 -m stack cargo fmt --all

# database migrations of the running stack: up, down, status, new
[no-exit-message]
migrate *args="up": ready
    @exec python3 -m stack millctl migrate "$@"

# millctl with the settings of the running stack
[no-exit-message]
millctl *args: ready
    @exec python3 -m stack millctl "$@"

# the addresses of the running stack as shell exports, for single tests
[no-exit-message]
env:
    @exec python3 -m stack env

# stop everything and remove all data, keys and logs
[no-exit-message]
wipe:
    @exec python3 -m stack wipe
