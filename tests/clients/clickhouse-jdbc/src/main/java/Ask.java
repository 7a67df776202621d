import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;
import java.util.Properties;

/**
 * Asks the statements of standard input, one a line, of ClickHouse's HTTP protocol at CLICKHOUSE_ADDRESS, and prints of each answer
 * the rows, one a line with tabs between its columns, and then an empty line. The argument is the compression: none or lz4. Last
 * come the tables, as DatabaseMetaData has them.
 */
public final class Ask {
  public static void main(String[] arguments) throws Exception {
    Properties properties = new Properties();
    properties.setProperty("user", "grafana");
    properties.setProperty("password", System.getenv("CLICKHOUSE_PASSWORD"));
    properties.setProperty("compress", String.valueOf(arguments[0].equals("lz4")));
    String url = "jdbc:clickhouse:http://" + System.getenv("CLICKHOUSE_ADDRESS") + "/default";
    BufferedReader statements = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    try (Connection connection = DriverManager.getConnection(url, properties);
        Statement statement = connection.createStatement()) {
      for (String sql = statements.readLine(); sql != null; sql = statements.readLine()) {
        try (ResultSet rows = statement.executeQuery(sql)) {
          print(rows, rows.getMetaData().getColumnCount());
        }
      }
      DatabaseMetaData metadata = connection.getMetaData();
      try (ResultSet tables = metadata.getTables(null, "default", "otel_%", null)) {
        while (tables.next()) {
          System.out.println(tables.getString("TABLE_NAME"));
        }
      }
    }
  }

  private static void print(ResultSet rows, int columns) throws Exception {
    while (rows.next()) {
      StringBuilder line = new StringBuilder();
      for (int column = 1; column <= columns; column++) {
        line.append(column == 1 ? "" : "\t").append(rows.getString(column));
      }
      System.out.println(line);
    }
    System.out.println();
  }
}
