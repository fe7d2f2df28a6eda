#!/bin/sh
# vector_products.sh OBJDUMP OBJECT: whether the aarch64 products are made of fused multiply-adds of whole vectors.
# A tile of n rows by two vectors, multiply_tile<n> or multiply_rows<n>, has at least 2 n of them.
set -eu
"$1" --disassemble --demangle "$2" | awk '
    /^[0-9a-f]+ <.*>:$/ {
        rows = 0
        if (match($0, /multiply_(tile|rows)<[0-9]+>/)) {
            tile = substr($0, RSTART, RLENGTH)
            rows = tile
            gsub(/[^0-9]/, "", rows)
            height[tile] = rows
        }
    }
    rows && /fmla[ \t]+v[0-9]+\.4s/ { ++found[tile] }
    END {
        for (tile in height) {
            printf "%-18s %3d vector fmla\n", tile, found[tile]
            if (found[tile] < 2 * height[tile]) { print tile " has fewer than two a row"; missing = 1 }
            ++tiles
        }
        if (!tiles) print "there are no products to look at"
        exit missing || !tiles
    }'
