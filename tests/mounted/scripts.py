"""What people and their tools do in a directory, as shell scripts for `test_tools`.

A script runs inside a database directory. $LIVE is the live manifest, $SAMPLE the database as it was
before, $OUT a folder elsewhere. The directory also holds notes.txt ("old notes", "of somebody") and
backup/inside.
"""

from __future__ import annotations

import shutil

_ALWAYS = {
    "ls": r"""
        ls -lnA --time-style=full-iso | tail -n +2
        ls
        ls backup
        ls nothing""",
    "cat": r"""
        cat CURRENT LOG MANIFEST-* *.ldb | sha256sum
        cat backup""",
    "stat": r"""
        stat -c '%n %F %s %a %u %g %h %y' -- *""",
    "find": r"""
        find . -type f -printf '%P %s %m %U:%G %n %T+\n' | sort
        find . -name '*.ldb' -size +4k | wc -l""",
    "du": r"""
        du -ab . | sort
        du -ab --max-depth=0 backup""",
    "grep": r"""
        grep -rc MANIFEST . | sort
        grep -rl leveldb.BytewiseComparator . | sort
        grep -rq absent .""",
    "head and tail": r"""
        head -n 3 LOG
        tail -n 2 LOG
        head -c 100 $LIVE | xxd
        tail -q -c 48 *.ldb | xxd""",
    "xxd": r"""
        xxd $LIVE
        xxd -s -48 *3.ldb
        xxd -r -p <<< 4d414e | tee bytes""",
    "sha256sum": r"""
        find . -type f | sort | xargs sha256sum | tee $OUT/sums
        sha256sum -c --quiet $OUT/sums""",
    "cmp": r"""
        cmp $LIVE $SAMPLE/$LIVE
        cmp CURRENT LOG""",
    "cp -a out": r"""
        cp -a . $OUT/copy
        cd $OUT/copy
        find . -type f -printf '%P %s %m %U:%G %T+\n' | sort""",
    "cp -a in": r"""
        cp -a $SAMPLE copy
        find copy -printf '%P %m %U:%G %T+\n' | sort
        diff -r $SAMPLE copy""",
    "cp over files": r"""
        cp LOG notes.txt
        cp $SAMPLE/CURRENT CURRENT
        cp $LIVE MANIFEST-000777
        cp -f notes.txt backup/""",
    "mv": r"""
        mv notes.txt n
        mv backup b
        mv n *3.ldb b/
        mv b c
        mv CURRENT aside
        mv aside CURRENT
        ls c""",
    "mv between file systems": r"""
        mv backup notes.txt $OUT/
        ls
        mv $OUT/backup $OUT/notes.txt .
        ls -R .""",
    "rm": r"""
        rm notes.txt *.ldb CURRENT
        rm backup
        rm -r backup
        rmdir backup
        ls""",
    "rsync -a out, twice": r"""
        rsync -ai ./ $OUT/r/
        echo again
        rsync -ai ./ $OUT/r/
        diff -r . $OUT/r""",
    "rsync -a in, twice": r"""
        rsync -ai $SAMPLE/ sub/
        echo again
        rsync -ai $SAMPLE/ sub/
        diff -r $SAMPLE sub""",
    "rsync -a over, twice": r"""
        echo more >> notes.txt
        touch $LIVE
        rm *3.ldb
        rsync -aiO --delete $SAMPLE/ ./
        echo again
        rsync -aiO --delete $SAMPLE/ ./
        cat CURRENT""",
    "rsync --inplace": r"""
        echo more >> notes.txt
        rsync -aiO --inplace -c $SAMPLE/ ./
        cat notes.txt""",
    "tar out and in": r"""
        tar -c --sort=name . > $OUT/t.tar
        tar -tvf $OUT/t.tar | grep -v ' ./$'
        mkdir sub
        tar -xf $OUT/t.tar -C sub
        diff -r $SAMPLE sub""",
    "tar over": r"""
        tar -c --sort=name . > $OUT/t.tar
        rm *.ldb notes.txt
        tar -xf $OUT/t.tar
        diff -r $SAMPLE .""",
    "dd": r"""
        dd if=/dev/zero of=notes.txt bs=1 seek=3 count=4 conv=notrunc status=none
        xxd notes.txt
        dd if=/dev/zero of=big bs=64k count=20 status=none conv=fsync
        dd if=LOG of=big bs=7 seek=11111 conv=notrunc status=none
        dd if=LOG of=big2 bs=4k seek=3 status=none
        sha256sum big big2""",
    "dd on a table": r"""
        table=$(ls *3.ldb)
        printf X | dd of=$table bs=1 seek=17 conv=notrunc status=none
        cmp -l $table $SAMPLE/$table""",
    "truncate": r"""
        truncate -s 4 notes.txt
        cat notes.txt
        truncate -s 1M notes.txt
        truncate -s -1 *3.ldb
        wc -c notes.txt *3.ldb""",
    "touch": r"""
        touch -d '2020-02-02 02:02:02.123456789 UTC' notes.txt CURRENT LOG backup
        touch new
        stat -c '%n %s %y' notes.txt CURRENT LOG backup
        [ new -nt LOG ]""",
    "sed -i": r"""
        sed -i s/old/young/ notes.txt
        sed -i.orig s/young/old/ notes.txt
        cat notes.txt notes.txt.orig""",
    "sed -i CURRENT": r"""
        cp $LIVE MANIFEST-000777
        sed -i s/$LIVE/MANIFEST-000777/ CURRENT
        cat CURRENT""",
    "shell redirections": r"""
        cp $LIVE MANIFEST-000777
        echo MANIFEST-000777 > CURRENT
        cat CURRENT
        echo $LIVE | tee CURRENT
        cat CURRENT
        echo a line >> LOG
        tail -n 1 LOG
        : > notes.txt
        { echo 1; echo 2 >&2; } > notes.txt 2>> notes.txt""",
    "editor that moves the old file away": r"""
        cp $LIVE MANIFEST-000777
        mv CURRENT CURRENT~
        (umask 022; echo MANIFEST-000777 > CURRENT)
        sync CURRENT
        chmod --reference=CURRENT~ CURRENT
        rm CURRENT~
        cat CURRENT""",
    "editor that moves the new file in": r"""
        cp $LIVE MANIFEST-000777
        echo MANIFEST-000777 > .CURRENT.swx
        sync .CURRENT.swx
        ln notes.txt notes.bak
        echo text > .notes.swx
        mv .notes.swx notes.txt
        mv .CURRENT.swx CURRENT
        cat CURRENT notes.*""",
    "editor that writes in place": r"""
        cp $LIVE MANIFEST-000777
        cp -p CURRENT CURRENT~
        echo MANIFEST-000777 | dd of=CURRENT conv=fsync status=none
        rm CURRENT~
        cat CURRENT""",
    "links": r"""
        ln notes.txt hard
        echo x >> hard
        stat -c '%n %h %s' hard notes.txt
        ln -s CURRENT soft
        cat soft
        rm notes.txt
        stat -c %h hard
        readlink soft
        ln -s backup/inside deep
        cat deep | xxd | tail -n 1""",
    "modes": r"""
        chmod 600 notes.txt
        chmod -R go-rwx backup
        chmod a-w *.ldb
        stat -c '%n %a' *
        umask 077
        touch private
        mkdir dark
        stat -c '%n %a' private dark""",
    "sort and friends": r"""
        sort -r -o notes.txt notes.txt
        cat notes.txt
        split -n 3 LOG part.
        cat part.* | cmp - LOG
        rm part.*
        wc *.ldb""",
    "open files live on": r"""
        exec 3< notes.txt
        rm notes.txt
        cat <&3
        exec 4<> fresh
        rm fresh
        echo hi >&4
        ls""",
    "mkdir -p and rmdir": r"""
        mkdir -p a/b/c
        touch a/b/c/d
        rmdir a
        rm -r a
        mkdir lost
        rmdir lost
        ls""",
}
_WHERE_THERE = {
    "ed": r"""
        cp $LIVE MANIFEST-000777
        printf '%s\n' s/$LIVE/MANIFEST-000777/ w q | ed -s CURRENT
        cat CURRENT
        printf '%s\n' '$a' 'a last line' . w q | ed -s notes.txt
        cat notes.txt""",
    "vim": r"""
        cp $LIVE MANIFEST-000777
        vim -nes -u NONE -c s/$LIVE/MANIFEST-000777/ -c wq CURRENT
        cat CURRENT
        vim -es -u NONE -c 's/old/new/' -c wq notes.txt
        cat notes.txt
        ls -A | grep -v bak""",
}

SCRIPTS = _ALWAYS | {tool: script for tool, script in _WHERE_THERE.items() if shutil.which(tool)}
"""By name; the tools that not every machine has only where they are."""
