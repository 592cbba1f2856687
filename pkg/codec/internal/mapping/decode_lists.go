package mapping

import (
	"reflect"
	"strconv"

	"github.com/cb02dfca/micro/pkg/codec"
)

func (ts *Types) sliceDecoder(t reflect.Type) decodeFunc {
	elem := ts.decoder(t.Elem())
	isBytes := t.Elem().Kind() == reflect.Uint8
	return func(d *Decoder, v reflect.Value) error {
		k, err := d.src.Next()
		switch {
		case err != nil:
			return err
		case k == Nil:
			v.SetZero()
			return d.src.Nil()
		case k == List:
			return d.slice(v, elem)
		case !isBytes:
			return mismatch(t, k)
		}
		data, err := d.bytes(t, k)
		if err == nil {
			v.SetBytes(data)
		}
		return err
	}
}

// bytes reads bytes, or their JSON form.
func (d *Decoder) bytes(t reflect.Type, k Kind) ([]byte, error) {
	switch k {
	case Bytes:
		return d.src.Bytes()
	case Text:
		s, err := d.src.Text()
		if err != nil {
			return nil, err
		}
		return fromBase64(s)
	}
	return nil, mismatch(t, k)
}

// slice reads a list into v, whose storage is used again.
func (d *Decoder) slice(v reflect.Value, elem decodeFunc) error {
	if err := d.enter(); err != nil {
		return err
	}
	n, err := d.src.List()
	if err != nil {
		return err
	}
	if v.IsNil() || v.Cap() == 0 {
		v.Set(reflect.MakeSlice(v.Type(), 0, min(n, maxExpected)))
	}
	v.SetLen(0)
	for {
		more, err := d.src.Element()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		i := v.Len()
		if i == v.Cap() {
			v.Grow(1)
		}
		v.SetLen(i + 1)
		v.Index(i).SetZero() // the storage may be that of a former value
		if err := elem(d, v.Index(i)); err != nil {
			return err
		}
	}
	d.depth--
	return nil
}

// arrayDecoder drops the elements that an array has no room for, and empties those for which none come, as encoding/json does.
func (ts *Types) arrayDecoder(t reflect.Type) decodeFunc {
	elem := ts.decoder(t.Elem())
	isBytes := t.Elem().Kind() == reflect.Uint8
	return func(d *Decoder, v reflect.Value) error {
		k, done, err := d.next()
		switch {
		case done:
			return err
		case k == List:
			return d.array(v, elem)
		case k != Bytes || !isBytes:
			return mismatch(t, k)
		}
		data, err := d.src.Bytes()
		if err != nil {
			return err
		}
		v.SetZero()
		for i := range min(len(data), v.Len()) {
			v.Index(i).SetUint(uint64(data[i]))
		}
		return nil
	}
}

func (d *Decoder) array(v reflect.Value, elem decodeFunc) error {
	if err := d.enter(); err != nil {
		return err
	}
	if _, err := d.src.List(); err != nil {
		return err
	}
	i := 0
	for ; ; i++ {
		more, err := d.src.Element()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if i >= v.Len() {
			err = d.skip()
		} else {
			err = elem(d, v.Index(i))
		}
		if err != nil {
			return err
		}
	}
	for ; i < v.Len(); i++ {
		v.Index(i).SetZero()
	}
	d.depth--
	return nil
}

// mapDecoder adds to a map what comes.
func (ts *Types) mapDecoder(t reflect.Type) decodeFunc {
	key := keyDecoder(t.Key())
	if key == nil {
		return noDecoder(t)
	}
	elem := ts.decoder(t.Elem())
	return func(d *Decoder, v reflect.Value) error {
		k, err := d.src.Next()
		switch {
		case err != nil:
			return err
		case k == Nil:
			v.SetZero()
			return d.src.Nil()
		case k != Map:
			return mismatch(t, k)
		}
		return d.entries(v, key, elem)
	}
}

func (d *Decoder) entries(v reflect.Value, key func(string) (reflect.Value, error), elem decodeFunc) error {
	if err := d.enter(); err != nil {
		return err
	}
	n, err := d.src.Map()
	if err != nil {
		return err
	}
	if v.IsNil() {
		v.Set(reflect.MakeMapWithSize(v.Type(), min(n, maxExpected)))
	}
	value := reflect.New(v.Type().Elem()).Elem()
	for {
		name, more, err := d.src.Key()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		k, err := key(string(name))
		if err != nil {
			return err
		}
		value.SetZero()
		if err := elem(d, value); err != nil {
			return err
		}
		v.SetMapIndex(k, value)
	}
	d.depth--
	return nil
}

// keyDecoder makes a map's key of its text; nil for a type that has none.
func keyDecoder(t reflect.Type) func(string) (reflect.Value, error) {
	wrong := func(s string) error { return Errorf("want a key of %s, got %.40q", t, s) }
	switch {
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		return func(s string) (reflect.Value, error) {
			v := reflect.New(t).Elem()
			return v, readText(v, s)
		}
	case t.Kind() == reflect.String:
		return func(s string) (reflect.Value, error) { return reflect.ValueOf(s).Convert(t), nil }
	case reflect.Int <= t.Kind() && t.Kind() <= reflect.Int64:
		return func(s string) (reflect.Value, error) {
			v := reflect.New(t).Elem()
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil || v.OverflowInt(n) {
				return v, wrong(s)
			}
			v.SetInt(n)
			return v, nil
		}
	case reflect.Uint <= t.Kind() && t.Kind() <= reflect.Uintptr:
		return func(s string) (reflect.Value, error) {
			v := reflect.New(t).Elem()
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil || v.OverflowUint(n) {
				return v, wrong(s)
			}
			v.SetUint(n)
			return v, nil
		}
	}
	return nil
}

var errUnexported = codec.Unsupported("a nil embedded pointer to a struct that is not exported cannot be set")
