// Command golevel drives goleveldb for the tests, in a process of its own so that its locks and its
// crashes are real. It answers in JSON, one object a line, each written as soon as it is true.
//
//	golevel COMMAND [flags] DIR
//
//	open       open, read every key in order, close: {"keys", "sha256", "iter_error"}
//	recover    the same after goleveldb's own rebuild (RecoverFile)
//	dump       as open, with {"key", "value"} for every key first
//	compact    open, compact everything, then as open
//	meta       what the file storage answers: {"meta"}
//	fill       write -count generated entries: {"written"}
//	write-sync write -count entries, each synced: {"acked"} for each as soon as Put returned
//	hold       open, {"held"}, keep it open until the input ends, close: {"closed"}
//	run        obey the script on the input: one answer for each of its lines
//
// A script's lines (keys and values in hexadecimal, "-" when empty; "sync" makes a write durable):
//
//	put KEY VALUE [sync] | del KEY [sync] | batch COUNT [sync], then COUNT lines put or del
//	get KEY | digest | compact | close | reopen
//	begin (an iterator, on what there is now) | rest (all that this iterator sees, as digest)
//	later put KEY VALUE [sync] (begin it, and obey what comes meanwhile) | result (its answer, once it ends)
//
// What the engine refuses is an answer, {"error"}, and exit status 0; status 2 means that the
// command itself was wrong. tests/plyvel_tool.py speaks the same language for LevelDB.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// answer is one line of output. Only what is set is written.
type answer struct {
	Keys      *int    `json:"keys,omitempty"`
	SHA256    string  `json:"sha256,omitempty"`
	IterError *string `json:"iter_error,omitempty"`
	Key       *string `json:"key,omitempty"`
	Value     *string `json:"value,omitempty"`
	Found     *bool   `json:"found,omitempty"`
	Meta      string  `json:"meta,omitempty"`
	Written   *int    `json:"written,omitempty"`
	Acked     *string `json:"acked,omitempty"`
	Held      bool    `json:"held,omitempty"`
	Closed    bool    `json:"closed,omitempty"`
	OK        bool    `json:"ok,omitempty"`
	Error     *string `json:"error,omitempty"`
}

// say writes one answer with a single write(2): nothing sits in a buffer when the process is killed.
func say(a answer) {
	line, err := json.Marshal(a)
	if err == nil {
		_, err = os.Stdout.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "golevel: cannot answer:", err)
		os.Exit(1)
	}
}

func refusal(err error) answer {
	text := err.Error()
	return answer{Error: &text}
}

func usage(text string) {
	fmt.Fprintln(os.Stderr, "golevel:", text)
	os.Exit(2)
}

// settings are the flags; every command takes all of them and uses what concerns it.
type settings struct {
	command, dir string
	options      opt.Options
	count, start int
	valueSize    int
	batch        int
	seed         string
	sync         bool
}

func parse(arguments []string) settings {
	if len(arguments) == 0 {
		usage("no command")
	}
	s := settings{command: arguments[0]}
	flags := flag.NewFlagSet(s.command, flag.ExitOnError)
	create := flags.Bool("create", false, "create the database if it is missing")
	readOnly := flags.Bool("ro", false, "open for reading only")
	compression := flags.String("compression", "snappy", "snappy or none")
	flags.IntVar(&s.options.WriteBuffer, "write-buffer", 0, "bytes before a journal becomes a table")
	flags.IntVar(&s.options.CompactionTableSize, "table-size", 0, "bytes in a table")
	flags.IntVar(&s.options.BlockSize, "block-size", 0, "bytes in a block")
	flags.IntVar(&s.count, "count", 0, "entries to write")
	flags.IntVar(&s.start, "start", 0, "number of the first entry")
	flags.IntVar(&s.valueSize, "value-size", 100, "bytes in a value")
	flags.IntVar(&s.batch, "batch", 1, "entries in a batch")
	flags.StringVar(&s.seed, "seed", "", "another seed gives other values")
	flags.BoolVar(&s.sync, "sync", false, "make each batch durable")
	_ = flags.Parse(arguments[1:])
	if flags.NArg() != 1 || s.batch < 1 {
		usage("wants exactly one directory, and batches of at least 1")
	}
	s.dir = flags.Arg(0)
	s.options.ErrorIfMissing = !*create
	s.options.ReadOnly = *readOnly
	switch *compression {
	case "snappy":
		s.options.Compression = opt.SnappyCompression
	case "none":
		s.options.Compression = opt.NoCompression
	default:
		usage("unknown compression " + *compression)
	}
	return s
}

func (s *settings) open() (*leveldb.DB, error) {
	return leveldb.OpenFile(s.dir, &s.options)
}

func generatedKey(number int) []byte {
	return []byte(fmt.Sprintf("key%08d", number))
}

// generatedValue is the same as value_of in tests/workload.py: it does not compress.
func generatedValue(seed string, number, size int) []byte {
	value := make([]byte, 0, size+sha256.Size)
	for block := 0; len(value) < size; block++ {
		sum := sha256.Sum256([]byte(fmt.Sprintf("%s/%d/%d", seed, number, block)))
		value = append(value, sum[:]...)
	}
	return value[:size]
}

// read goes over every key in order. It stops where the engine stops and says why.
func read(db *leveldb.DB, each func(key, value string)) answer {
	return readAs(db.NewIterator(nil, nil), each)
}

// readAs does so with an iterator that may have been begun before.
func readAs(iterator iterator.Iterator, each func(key, value string)) answer {
	digest := sha256.New()
	keys, problem := 0, ""
	for more := iterator.First(); more; more = iterator.Next() {
		key, value := hex.EncodeToString(iterator.Key()), hex.EncodeToString(iterator.Value())
		fmt.Fprintf(digest, "%s %s\n", key, value)
		if each != nil {
			each(key, value)
		}
		keys++
	}
	iterator.Release()
	if err := iterator.Error(); err != nil {
		problem = err.Error()
	}
	return answer{Keys: &keys, SHA256: hex.EncodeToString(digest.Sum(nil)), IterError: &problem}
}

// closing gives the answer of a command only after the database closed without complaint.
func closing(db *leveldb.DB, a answer, err error) (answer, error) {
	if closeError := db.Close(); err == nil {
		err = closeError
	}
	return a, err
}

func (s *settings) readAll(db *leveldb.DB, err error, before func() error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	if before != nil {
		if err := before(); err != nil {
			return closing(db, answer{}, err)
		}
	}
	var each func(key, value string)
	if s.command == "dump" {
		each = func(key, value string) { say(answer{Key: &key, Value: &value}) }
	}
	return closing(db, read(db, each), nil)
}

func (s *settings) compact() (answer, error) {
	db, err := s.open()
	return s.readAll(db, err, func() error { return db.CompactRange(util.Range{}) })
}

func (s *settings) meta() (answer, error) {
	stor, err := storage.OpenFile(s.dir, s.options.ReadOnly)
	if err != nil {
		return answer{}, err
	}
	fd, err := stor.GetMeta()
	if closeError := stor.Close(); err == nil {
		err = closeError
	}
	return answer{Meta: fd.String()}, err
}

func (s *settings) fill() (answer, error) {
	db, err := s.open()
	if err != nil {
		return answer{}, err
	}
	var batch leveldb.Batch
	for i := s.start; i < s.start+s.count && err == nil; i++ {
		batch.Put(generatedKey(i), generatedValue(s.seed, i, s.valueSize))
		if batch.Len() == s.batch || i+1 == s.start+s.count {
			err = db.Write(&batch, &opt.WriteOptions{Sync: s.sync})
			batch.Reset()
		}
	}
	return closing(db, answer{Written: &s.count}, err)
}

func (s *settings) writeSync() (answer, error) {
	db, err := s.open()
	if err != nil {
		return answer{}, err
	}
	for i := s.start; i < s.start+s.count; i++ {
		key := generatedKey(i)
		err = db.Put(key, generatedValue(s.seed, i, s.valueSize), &opt.WriteOptions{Sync: true})
		if err != nil {
			break
		}
		text := hex.EncodeToString(key)
		say(answer{Acked: &text})
	}
	return closing(db, answer{Written: &s.count}, err)
}

func (s *settings) hold() (answer, error) {
	db, err := s.open()
	if err != nil {
		return answer{}, err
	}
	say(answer{Held: true})
	_, err = io.Copy(io.Discard, os.Stdin)
	return closing(db, answer{Closed: true}, err)
}

// script obeys the lines of its input.
type script struct {
	settings *settings
	input    *bufio.Reader
	db       *leveldb.DB
	begun    iterator.Iterator
	later    chan answer
}

var errClosed = errors.New("the script closed the database")

func (s *settings) run() (answer, error) {
	db, err := s.open()
	if err != nil {
		return answer{}, err
	}
	say(answer{Held: true})
	r := script{settings: s, input: bufio.NewReader(os.Stdin), db: db}
	for {
		words, more := r.line()
		if !more {
			break
		}
		a, err := r.obey(words)
		if err != nil {
			a = refusal(err)
		}
		say(a)
	}
	return answer{Closed: true}, r.close()
}

func (r *script) line() (words []string, more bool) {
	text, err := r.input.ReadString('\n')
	if err == io.EOF && text == "" {
		return nil, false
	}
	if err != nil && err != io.EOF {
		usage("cannot read the script: " + err.Error())
	}
	words = strings.Fields(text)
	if len(words) == 0 {
		usage("empty line in the script")
	}
	return words, true
}

func (r *script) close() error {
	if r.db == nil {
		return nil
	}
	if r.begun != nil {
		r.begun.Release()
		r.begun = nil
	}
	err := r.db.Close()
	r.db = nil
	return err
}

func (r *script) obey(words []string) (answer, error) {
	verb, rest := words[0], words[1:]
	if verb == "reopen" {
		err := r.close()
		if err == nil {
			r.db, err = r.settings.open()
		}
		if err != nil {
			r.db = nil
		}
		return answer{OK: true}, err
	}
	switch verb {
	case "close":
		return answer{OK: true}, r.close()
	case "put", "del":
		sync, rest := durable(rest)
		var batch leveldb.Batch
		record(&batch, verb, rest)
		return r.write(&batch, sync)
	case "later":
		if len(rest) == 0 || rest[0] != "put" || r.later != nil {
			usage("later put KEY VALUE [sync], one at a time")
		}
		sync, words := durable(rest[1:])
		var batch leveldb.Batch
		record(&batch, "put", words)
		r.later = make(chan answer, 1)
		go func() {
			a, err := r.write(&batch, sync)
			if err != nil {
				a = refusal(err)
			}
			r.later <- a
		}()
		return answer{OK: true}, nil
	case "result":
		if r.later == nil {
			usage("result without later")
		}
		a := <-r.later
		r.later = nil
		return a, nil
	case "batch":
		sync, rest := durable(rest)
		var batch leveldb.Batch
		for i := number(rest); i > 0; i-- {
			words, more := r.line()
			if !more {
				usage("the script ends inside a batch")
			}
			record(&batch, words[0], words[1:])
		}
		return r.write(&batch, sync)
	}
	if r.db == nil {
		return answer{}, errClosed
	}
	switch verb {
	case "get":
		if len(rest) != 1 {
			usage("get KEY")
		}
		value, err := r.db.Get(unhex(rest[0]), nil)
		found := err == nil
		if err == leveldb.ErrNotFound {
			err = nil
		}
		a := answer{Found: &found}
		if found {
			text := hex.EncodeToString(value)
			a.Value = &text
		}
		return a, err
	case "digest":
		return read(r.db, nil), nil
	case "compact":
		return answer{OK: true}, r.db.CompactRange(util.Range{})
	case "begin":
		if r.begun != nil {
			r.begun.Release()
		}
		r.begun = r.db.NewIterator(nil, nil)
		r.begun.First()
		return answer{OK: true}, r.begun.Error()
	case "rest":
		if r.begun == nil {
			usage("rest without begin")
		}
		a := readAs(r.begun, nil)
		r.begun = nil
		return a, nil
	}
	usage("unknown word in the script: " + verb)
	return answer{}, nil
}

func (r *script) write(batch *leveldb.Batch, sync bool) (answer, error) {
	if r.db == nil {
		return answer{}, errClosed
	}
	return answer{OK: true}, r.db.Write(batch, &opt.WriteOptions{Sync: sync})
}

func durable(words []string) (sync bool, rest []string) {
	if last := len(words) - 1; last >= 0 && words[last] == "sync" {
		return true, words[:last]
	}
	return false, words
}

func record(batch *leveldb.Batch, verb string, words []string) {
	switch {
	case verb == "put" && len(words) == 2:
		batch.Put(unhex(words[0]), unhex(words[1]))
	case verb == "del" && len(words) == 1:
		batch.Delete(unhex(words[0]))
	default:
		usage(fmt.Sprintf("neither put KEY VALUE nor del KEY: %s %v", verb, words))
	}
}

func unhex(word string) []byte {
	if word == "-" {
		return []byte{}
	}
	data, err := hex.DecodeString(word)
	if err != nil {
		usage("not hexadecimal: " + word)
	}
	return data
}

func number(words []string) int {
	if len(words) != 1 {
		usage("batch COUNT [sync]")
	}
	n, err := strconv.Atoi(words[0])
	if err != nil {
		usage(err.Error())
	}
	return n
}

func main() {
	s := parse(os.Args[1:])
	var a answer
	var err error
	switch s.command {
	case "open", "dump":
		db, openError := s.open()
		a, err = s.readAll(db, openError, nil)
	case "recover":
		db, openError := leveldb.RecoverFile(s.dir, &s.options)
		a, err = s.readAll(db, openError, nil)
	case "compact":
		a, err = s.compact()
	case "meta":
		a, err = s.meta()
	case "fill":
		a, err = s.fill()
	case "write-sync":
		a, err = s.writeSync()
	case "hold":
		a, err = s.hold()
	case "run":
		a, err = s.run()
	default:
		usage("unknown command " + s.command)
	}
	if err != nil {
		a = refusal(err)
	}
	say(a)
}
