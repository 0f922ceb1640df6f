package output

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Inspected runs a template for each value, one line each. Fields have the names
// of the values' JSON, and are there when that leaves them out for being empty. A
// name that there is not is an error, as in Docker: a script that asks for it would
// take what is printed in its place for an answer. That holds for keys of maps, too:
// labels that may be missing are asked for by index.
func Inspected(w io.Writer, format string, values []any) error {
	t, err := Parse(format)
	if err != nil {
		return err
	}
	t.t.Option("missingkey=error")
	for _, v := range values {
		named, err := byName(reflect.ValueOf(v))
		if err == nil {
			err = t.line(w, named)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// byName turns structs into maps with the names of their JSON, all the way down.
func byName(v reflect.Value) (any, error) {
	if !v.IsValid() {
		return nil, nil
	}
	if own, ok, err := ownJSON(v); ok {
		return own, err
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil, nil
		}
		return byName(v.Elem())
	case reflect.Struct:
		fields := map[string]any{}
		return fields, addFields(fields, v)
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.String {
			m := map[string]string{} // so that what index does not find is empty
			for _, key := range v.MapKeys() {
				m[fmt.Sprint(key)] = v.MapIndex(key).String()
			}
			return m, nil
		}
		m := map[string]any{}
		for _, key := range v.MapKeys() {
			value, err := byName(v.MapIndex(key))
			if err != nil {
				return nil, err
			}
			m[fmt.Sprint(key)] = value
		}
		return m, nil
	case reflect.Slice, reflect.Array:
		list := make([]any, v.Len())
		for i := range list {
			var err error
			if list[i], err = byName(v.Index(i)); err != nil {
				return nil, err
			}
		}
		return list, nil
	case reflect.String:
		return v.String(), nil
	}
	return v.Interface(), nil
}

// addFields adds what encoding/json would write of a struct, and what it would
// leave out.
func addFields(fields map[string]any, v reflect.Value) error {
	var own []reflect.StructField
	for _, f := range reflect.VisibleFields(v.Type()) {
		switch name := jsonName(f); {
		case len(f.Index) > 1 || name == "-":
		case f.Anonymous && name == "":
			// What it holds is ours, unless we have something of that name ourselves.
			inner := reflect.Indirect(v.FieldByIndex(f.Index))
			if !inner.IsValid() {
				continue
			}
			if err := addFields(fields, inner); err != nil {
				return err
			}
		case f.IsExported():
			own = append(own, f)
		}
	}
	for _, f := range own {
		value, err := byName(v.FieldByIndex(f.Index))
		if err != nil {
			return err
		}
		fields[cmp.Or(jsonName(f), f.Name)] = value
	}
	return nil
}

// jsonName is the name that a field's tag gives it, "" for none.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// ownJSON is v as it writes itself, if it has a say in that: a time is a string.
func ownJSON(v reflect.Value) (own any, ok bool, err error) {
	if v.Kind() == reflect.Pointer && v.IsNil() || v.Kind() == reflect.Interface {
		return nil, false, nil
	}
	bytesAsText := v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8
	switch v.Interface().(type) {
	case json.Marshaler, encoding.TextMarshaler:
	default:
		if !bytesAsText {
			return nil, false, nil
		}
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return nil, true, fmt.Errorf("write JSON: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber() // an ID or a limit must not become a float
	err = dec.Decode(&own)
	return own, true, err
}
