package codec_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/raw"
)

func TestAlias(t *testing.T) {
	t.Parallel()
	c := raw.New()
	set := codec.Set{c, codec.Alias(c, "application/x-other")}
	if got := set.ContentTypes(); !slices.Equal(got, []string{raw.ContentType, "application/x-other"}) {
		t.Errorf("content types %v", got)
	}
	for _, contentType := range []string{"application/x-other", "Application/X-Other; charset=utf-8"} {
		cd, err := set.For(contentType)
		if err != nil || cd.ContentType() != "application/x-other" {
			t.Errorf("%s: got %v, %v", contentType, cd, err)
			continue
		}
		data, err := cd.Append([]byte("a"), "b")
		var got string
		if err := errors.Join(err, cd.Unmarshal(data, &got)); err != nil || got != "ab" {
			t.Errorf("%s: got %q, %v", contentType, got, err)
		}
	}
	if cd, err := set.For(raw.ContentType); err != nil || cd != codec.Codec(c) {
		t.Errorf("the codec's own: got %v, %v", cd, err)
	}
}
