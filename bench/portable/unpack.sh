#!/usr/bin/env bash
# Takes the parts that a batch brought into a folder to work in, and puts together what is whole. Run it after each batch, as often as you like.
#
#   bash unpack.sh WORK
#
# It needs a Python 3 that reads xz, and no network. items.txt has one thing a line: its name, its place in WORK, its SHA-256, and those of its parts in order.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?a folder to work in}"
work=$(cd "$1" && pwd)
mkdir -p "$work/parts" "$work/done"
cp "$here/shards.py" "$work/shards.py"
damaged=0

sum_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# A part is named by the checksum that it must have. Renamed when it is whole: an interrupted copy is no part.
for part in "$here"/*.part; do
  [ -e "$part" ] || continue
  name=$(basename "$part" .part)
  if [ ! -e "$work/parts/$name" ]; then
    cp "$part" "$work/parts/$name.arriving"
    if [ "$(sum_of "$work/parts/$name.arriving")" != "$name" ]; then
      echo "part ${name:0:8} is damaged: bring its batch again"
      rm -f "$work/parts/$name.arriving"
      damaged=1
      continue
    fi
    mv "$work/parts/$name.arriving" "$work/parts/$name"
  fi
  rm -f "$part" 2> /dev/null || true
done

# A folder is unpacked aside and takes the older one's place.
put_folder() {
  rm -rf "$work/$2.new"
  mkdir -p "$work/$2.new"
  python3 -W ignore -c 'import sys, tarfile; tarfile.open(sys.argv[1], "r:xz").extractall(sys.argv[2])' "$1" "$work/$2.new"
  rm -rf "${work:?}/$2"
  mv "$work/$2.new" "$work/$2"
}

# Beside a model lies the note by which the product knows that it was checked; whole seconds, as every file system keeps them.
put_file() {
  mkdir -p "$work/$2"
  local file
  file="$work/$2/$3"
  mv "$1" "$file"
  case $3 in
    *.gguf)
      touch -d @1600000000 "$file"
      printf '{"bytes":%s,"mtimeMs":1600000000000,"sha256":"%s"}' "$(stat -c %s "$file")" "$4" > "$file.verified.json"
      ;;
  esac
}

waiting=0 used=
while read -r name place sum parts; do
  note=$work/done/${place//\//-}-$name
  if [ "$(cat "$note" 2> /dev/null)" != "$sum" ]; then
    count=0 absent=0
    for part in $parts; do
      count=$((count + 1))
      [ -e "$work/parts/$part" ] || absent=$((absent + 1))
    done
    if [ "$absent" -gt 0 ]; then
      echo "$name: $absent of $count parts are missing"
      waiting=1
      continue
    fi
    whole=$work/parts/$name.whole
    (cd "$work/parts" && cat $parts) > "$whole"
    if [ "$(sum_of "$whole")" != "$sum" ]; then echo "$name is not what was packed" >&2; exit 1; fi
    case $name in
      *.tar.xz)
        put_folder "$whole" "$place"
        rm "$whole"
        ;;
      *) put_file "$whole" "$place" "$name" "$sum" ;;
    esac
    echo "$sum" > "$note"
    echo "$name: $place"
  fi
  used+=" $parts"
done < "$here/items.txt"
# Not sooner: two things may be of the same bytes.
(cd "$work/parts" && rm -f $used)
if [ "$waiting" = 0 ]; then echo "everything is there"; fi
exit "$damaged"
