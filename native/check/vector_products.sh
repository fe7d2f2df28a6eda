#!/bin/sh
# vector_products.sh OBJDUMP OBJECT: whether the aarch64 products are made of fused multiply-adds of whole vectors.
# A tile of n rows by v vectors, multiply_tile<n, v> or multiply_rows<n, v>, has at least n v of them.
set -eu
"$1" --disassemble --demangle "$2" | awk '
    /^[0-9a-f]+ <.*>:$/ {
        tile = ""
        if (match($0, /multiply_(tile|rows)<[0-9]+, [0-9]+>/)) {
            tile = substr($0, RSTART, RLENGTH)
            split(tile, sizes, /[^0-9]+/)
            least[tile] = sizes[2] * sizes[3]
        }
    }
    tile != "" && /fmla[ \t]+v[0-9]+\.4s/ { ++found[tile] }
    END {
        for (tile in least) {
            printf "%-21s %3d vector fmla\n", tile, found[tile]
            if (found[tile] < least[tile]) { print tile " has fewer than one a vector of sums"; missing = 1 }
            ++tiles
        }
        if (!tiles) print "there are no products to look at"
        exit missing || !tiles
    }'
