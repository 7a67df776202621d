// Asks the statements of standard input, a JSON array, of ClickHouse's HTTP protocol at CLICKHOUSE_ADDRESS, as Grafana's plugin
// does, and prints a JSON array of their answers: each the rows, each the columns as text. The argument is the compression.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

var methods = map[string]clickhouse.CompressionMethod{
	"none": clickhouse.CompressionNone,
	"gzip": clickhouse.CompressionGZIP,
	"lz4":  clickhouse.CompressionLZ4,
	"zstd": clickhouse.CompressionZSTD,
}

func answer(ctx context.Context, connection clickhouse.Conn, statement string) ([][]string, error) {
	rows, err := connection.Query(ctx, statement)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	answer := [][]string{}
	for rows.Next() {
		values := []any{}
		for _, column := range rows.ColumnTypes() {
			values = append(values, reflect.New(column.ScanType()).Interface())
		}
		if err := rows.Scan(values...); err != nil {
			return nil, err
		}
		row := []string{}
		for _, value := range values {
			row = append(row, fmt.Sprint(reflect.ValueOf(value).Elem().Interface()))
		}
		answer = append(answer, row)
	}
	return answer, rows.Err()
}

func run() error {
	var statements []string
	if err := json.NewDecoder(os.Stdin).Decode(&statements); err != nil {
		return err
	}
	connection, err := clickhouse.Open(&clickhouse.Options{
		Protocol:    clickhouse.HTTP,
		Addr:        []string{os.Getenv("CLICKHOUSE_ADDRESS")},
		Auth:        clickhouse.Auth{Database: "default", Username: "grafana", Password: os.Getenv("CLICKHOUSE_PASSWORD")},
		Compression: &clickhouse.Compression{Method: methods[os.Args[1]]},
		Settings:    clickhouse.Settings{"max_execution_time": 60},
		DialTimeout: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx := context.Background()
	if err := connection.Ping(ctx); err != nil {
		return err
	}
	answers := [][][]string{}
	for _, statement := range statements {
		rows, err := answer(ctx, connection, statement)
		if err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
		answers = append(answers, rows)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
