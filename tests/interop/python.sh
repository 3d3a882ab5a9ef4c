#!/bin/sh
# python.sh DEFAULT ARGUMENT ...: runs Python with the arguments, the one that BOSS_INTEROP_PYTHON names if there is one.
default=$1
shift
exec "${BOSS_INTEROP_PYTHON:-$default}" "$@"
